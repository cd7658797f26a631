/* vmm_hostile.c - secret code that does anything at any time, from every vCPU: exits with any argument,
 * garbage all over its monitor; while guests rewrite their regions and the agent attaches and detaches them.
 * Whatever happens, there is one end, and it is told once. */
#define _GNU_SOURCE
#include "kernel.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ROUNDS 30u
#define VCPUS 3u
#define COMMANDS 3000u
#define PORT_DATA 4096u

static uint32_t gone;  /* atomic: this round's VMM has ended */
static int regions[2]; /* memfds of two guest processes */
static uint8_t *guests[2];
static uint32_t commands, told[VMM_EVENT_ATTACHED + 1];

static uint64_t draw(uint64_t *state) {
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 16;
}

static uint64_t edge(uint64_t *state) {
    static const uint64_t edges[] = {0, 1, 2, 3, 63, 64, 1ull << 32, 2ull << 32, 1ull << 63, ~0ull};
    const uint64_t word = draw(state);
    return word & 1 ? word : edges[word / 2 % (sizeof edges / sizeof edges[0])];
}

static void garbage(uint8_t *at, uint64_t bytes, uint64_t *state) {
    for (uint32_t i = 0; i < 16; i++) {
        const uint64_t place = draw(state) % (bytes / 4) * 4;
        __atomic_store_n((uint32_t *)(void *)(at + place), (uint32_t)edge(state), __ATOMIC_RELAXED);
    }
}

/* Most exits go on; one in some hundred is anything. */
static int enclave(struct vmm_cpu *cpu) {
    static __thread uint64_t state;
    static __thread const struct vmm_vm *own; /* a thread that slept may wake in the next one's life */
    static const uint8_t usual[] = {CAFE_EXIT_IDLE, CAFE_EXIT_WAKE, CAFE_EXIT_YIELD, CAFE_EXIT_REST};
    struct kvm_run *run = cpu->run;
    own = own ? own : cpu->vm;
    if (__atomic_load_n(&gone, __ATOMIC_SEQ_CST) || own != cpu->vm)
        pthread_exit(NULL); /* as the whole process would */
    state = state ? state : (uintptr_t)&state;
    garbage((uint8_t *)cpu->vm->monitor, sizeof(struct cafe_monitor), &state);
    const bool first = cpu->number == 0 && cpu->vm->phase != VMM_READY;
    const bool odd = draw(&state) % 300 == 0;
    errno = draw(&state) % 4 ? EINTR : EAGAIN;
    if (!first && draw(&state) % 8 == 0)
        return -1;
    run->exit_reason = odd ? (uint32_t)draw(&state) % 40 : KVM_EXIT_IO;
    run->io.direction = KVM_EXIT_IO_OUT;
    run->io.port = CAFE_PORT;
    run->io.size = 1;
    run->io.count = 1;
    run->io.data_offset = PORT_DATA;
    run->s.regs.regs.rdi = edge(&state);
    ((uint8_t *)run)[PORT_DATA] = first ? CAFE_EXIT_READY
                                  : odd ? (uint8_t)draw(&state)
                                        : usual[draw(&state) % 4];
    return 0;
}

static void *guest(void *which) {
    uint64_t state = (uintptr_t)&state;
    uint8_t *region = guests[(uintptr_t)which];
    while (!__atomic_load_n(&gone, __ATOMIC_SEQ_CST)) {
        garbage(region, CAFE_CHANNEL_HEADER_BYTES, &state);
        garbage(region + CAFE_CHANNEL_HEADER_BYTES, REGION_BYTES - CAFE_CHANNEL_HEADER_BYTES, &state);
        vmm_wake_all((uint32_t *)(void *)(region + 128)); /* the bell */
    }
    return NULL;
}

/* Commands, one after the other, then the end. */
static ssize_t agent(struct msghdr *message) {
    static uint64_t state = 7;
    struct vmm_command command = {.kind = VMM_DETACH, .region = (uint32_t)edge(&state) % (REGIONS + 2)};
    struct cmsghdr *passed = message->msg_control;
    errno = EINTR;
    if (__atomic_load_n(&gone, __ATOMIC_SEQ_CST) || commands++ == COMMANDS)
        errno = ECONNRESET;
    if (errno == ECONNRESET || draw(&state) % 4 == 0)
        return -1;
    message->msg_flags = 0;
    message->msg_controllen = 0;
    if (draw(&state) % 2) {
        const int fd = dup(regions[draw(&state) % 2]);
        command.kind = VMM_ATTACH;
        message->msg_controllen = CMSG_LEN(sizeof fd);
        *passed = (struct cmsghdr){
            .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
        memcpy(CMSG_DATA(passed), &fd, sizeof fd);
    }
    memcpy(message->msg_iov->iov_base, &command, sizeof command);
    (void)usleep(200);
    return sizeof command;
}

/* Reads what the VMM says; the end it tells is the last. */
static void *hears(void *unused) {
    struct vmm_event event;
    do {
        NEED(kernel_event(&event));
        NEED(event.kind >= VMM_EVENT_READY && event.kind <= VMM_EVENT_ATTACHED && event.zero == 0);
        told[event.kind]++;
    } while (event.kind == VMM_EVENT_READY || event.kind == VMM_EVENT_ATTACHED);
    NEED(event.kind == VMM_EVENT_HOST ? event.status != 0 : event.status <= CAFE_E_CALLBACK);
    __atomic_store_n(&gone, 1, __ATOMIC_SEQ_CST);
    return unused;
}

static void one_life(struct vmm_vm **life) {
    pthread_t guest_threads[2], listener;
    struct vmm_vm *vm = kernel_new(VCPUS); /* not freed: a thread that lost waits in it for ever */
    *life = vm;
    gone = 0;
    vmm_watchdog_install(vm);
    NEED(pthread_create(&listener, NULL, hears, NULL) == 0);
    for (uintptr_t i = 0; i < 2; i++)
        NEED(pthread_create(&guest_threads[i], NULL, guest, (void *)i) == 0);
    NEED(vmm_start_threads(vm) == VMM_STEP_NONE);
    vmm_enter_phase(vm, VMM_CONFINED);
    commands = 0;
    vmm_control(vm);
    if (!__atomic_load_n(&gone,
                         __ATOMIC_SEQ_CST)) /* all may sleep for ever; then the agent has enough of it */
        vmm_send(&(struct vmm_event){.kind = VMM_EVENT_DEADLINE});
    NEED(pthread_join(listener, NULL) == 0);
    for (uint32_t i = 0; i < 2; i++)
        NEED(pthread_join(guest_threads[i], NULL) == 0);
    struct vmm_event rest; /* what was under way may still come, but no other end */
    while (recv(kernel_agent, &rest, sizeof rest, MSG_DONTWAIT) > 0)
        NEED(rest.kind == VMM_EVENT_ATTACHED);
    (void)__atomic_add_fetch(&vm->changed, 1, __ATOMIC_SEQ_CST); /* those that sleep would be gone, too */
    vmm_wake_all(&vm->changed);
}

int main(void) {
    static struct vmm_vm *lives[ROUNDS];
    kernel.enclave = enclave;
    kernel.receive = agent;
    for (uint32_t i = 0; i < 2; i++) {
        regions[i] = kernel_region();
        guests[i] = mmap(NULL, REGION_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, regions[i], 0);
        NEED(guests[i] != MAP_FAILED);
    }
    for (uint32_t i = 0; i < ROUNDS; i++)
        one_life(&lives[i]);
    NEED(told[VMM_EVENT_READY] > 0);
    NEED(told[VMM_EVENT_FAULT] + told[VMM_EVENT_DEADLINE] + told[VMM_EVENT_ABORT] + told[VMM_EVENT_HOST] ==
         ROUNDS);
    (void)puts("all good");
    return 0;
}
