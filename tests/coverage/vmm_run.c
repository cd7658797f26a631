/* vmm_run.c - every exit that KVM can report for a vCPU, with every argument that secret code can give it. */
#define _GNU_SOURCE
#include "kernel.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define STEPS 4u
#define RIP 0x1234u
#define ERROR_CODE 7u
#define PORT_DATA 4096u

/* One return of KVM_RUN. */
struct step {
    int error; /* errno, if it fails */
    uint32_t reason;
    uint8_t al, direction, size, port_off;
    uint32_t count;
    uint64_t rdi;
};
#define OUT(reason_, rdi_)                                                                                   \
    {.reason = KVM_EXIT_IO,                                                                                  \
     .al = (reason_),                                                                                        \
     .direction = KVM_EXIT_IO_OUT,                                                                           \
     .size = 1,                                                                                              \
     .count = 1,                                                                                             \
     .rdi = (rdi_)}
#define EXIT(reason_) {.reason = (reason_)}
#define FAILS(error_) {.error = (error_)}
#define GIVE_UP OUT(CAFE_EXIT_ABORT, CAFE_E_LIMIT)

struct row {
    struct step steps[STEPS];
    uint32_t kind, status, vector, error_code;
    uint64_t rip; /* KVM_GET_REGS */
    bool no_regs, no_sregs;
};

static const struct row *now;
static uint32_t done;

static int enclave(struct vmm_cpu *cpu) {
    struct kvm_run *run = cpu->run;
    const struct step *step = &now->steps[done < STEPS - 1 ? done++ : done];
    NEED(run->kvm_valid_regs == KVM_SYNC_X86_REGS);
    (void)__atomic_add_fetch(&cpu->vm->changed, 1, __ATOMIC_SEQ_CST); /* nobody sleeps for long */
    if (step->error) {
        errno = step->error;
        return -1;
    }
    run->exit_reason = step->reason;
    run->io.direction = step->direction;
    run->io.port = (uint16_t)(CAFE_PORT + step->port_off);
    run->io.size = step->size;
    run->io.count = step->count;
    run->io.data_offset = PORT_DATA;
    ((uint8_t *)run)[PORT_DATA] = step->al;
    run->s.regs.regs.rdi = step->rdi;
    return 0;
}

#define ABORTS .kind = VMM_EVENT_ABORT, .status = CAFE_E_ABORT
#define FAULTS(vector_) .kind = VMM_EVENT_FAULT, .status = CAFE_E_FAULT, .vector = (vector_)
#define GATE(vector_) .steps = {EXIT(KVM_EXIT_HLT)}, .rip = HANDLERS + 16 * (vector_)
#define HOST(error_) .kind = VMM_EVENT_HOST, .status = (error_)

static const struct row rows[] = {
    {.steps = {OUT(CAFE_EXIT_ABORT, CAFE_E_LIMIT)}, .kind = VMM_EVENT_ABORT, .status = CAFE_E_LIMIT},
    {.steps = {OUT(CAFE_EXIT_ABORT, CAFE_E_CALLBACK)}, .kind = VMM_EVENT_ABORT, .status = CAFE_E_CALLBACK},
    {.steps = {OUT(CAFE_EXIT_ABORT, CAFE_OK)}, ABORTS},
    {.steps = {OUT(CAFE_EXIT_ABORT, CAFE_E_CALLBACK + 1)}, ABORTS},
    {.steps = {OUT(CAFE_EXIT_ABORT, ~0ull)}, ABORTS},
    {.steps = {OUT(CAFE_EXIT_READY, 0), OUT(CAFE_EXIT_READY, 0)}, ABORTS},
    {.steps = {OUT(0, 0)}, ABORTS},
    {.steps = {OUT(CAFE_EXIT_REST + 1, 0)}, ABORTS},
    {.steps = {OUT(CAFE_EXIT_YIELD, ~0ull), OUT(CAFE_EXIT_WAKE, 0), GIVE_UP},
     .kind = VMM_EVENT_ABORT,
     .status = CAFE_E_LIMIT},
    {.steps = {OUT(CAFE_EXIT_IDLE, ~0ull), OUT(CAFE_EXIT_REST, ~0ull), OUT(CAFE_EXIT_REST, 0), GIVE_UP},
     .kind = VMM_EVENT_ABORT,
     .status = CAFE_E_LIMIT},
    {.steps = {OUT(CAFE_EXIT_WAKE, ~0ull), OUT(CAFE_EXIT_WAKE, SLOTS), OUT(CAFE_EXIT_WAKE, 1ull << 35),
               GIVE_UP},
     .kind = VMM_EVENT_ABORT,
     .status = CAFE_E_LIMIT},
    {.steps = {{.reason = KVM_EXIT_IO, .direction = KVM_EXIT_IO_IN, .size = 1, .count = 1, .al = 4}}, ABORTS},
    {.steps = {{.reason = KVM_EXIT_IO,
                .direction = KVM_EXIT_IO_OUT,
                .size = 1,
                .count = 1,
                .al = 4,
                .port_off = 1}},
     ABORTS},
    {.steps = {{.reason = KVM_EXIT_IO, .direction = KVM_EXIT_IO_OUT, .size = 4, .count = 1, .al = 4}},
     ABORTS},
    {.steps = {{.reason = KVM_EXIT_IO, .direction = KVM_EXIT_IO_OUT, .size = 1, .count = 3, .al = 4}},
     ABORTS},
    {.steps = {EXIT(KVM_EXIT_MMIO)}, ABORTS},
    {.steps = {EXIT(KVM_EXIT_HYPERCALL)}, ABORTS},
    {.steps = {EXIT(KVM_EXIT_X86_RDMSR)}, ABORTS},
    {.steps = {EXIT(0xffffffff)}, ABORTS},
    {.steps = {EXIT(KVM_EXIT_SHUTDOWN)}, FAULTS(VMM_VECTOR_UNKNOWN)},
    {.steps = {EXIT(KVM_EXIT_INTR), GIVE_UP}, .kind = VMM_EVENT_ABORT, .status = CAFE_E_LIMIT},
    {.steps = {EXIT(KVM_EXIT_FAIL_ENTRY)}, HOST(EIO)},
    {.steps = {EXIT(KVM_EXIT_INTERNAL_ERROR)}, HOST(EIO)},
    {.steps = {FAILS(EINTR), FAILS(EAGAIN), GIVE_UP}, .kind = VMM_EVENT_ABORT, .status = CAFE_E_LIMIT},
    {.steps = {FAILS(EFAULT)}, HOST(EFAULT)},
    {GATE(0), FAULTS(0)},
    {GATE(14), FAULTS(14), .error_code = ERROR_CODE},
    {GATE(13) + 1, FAULTS(13), .error_code = ERROR_CODE},
    {GATE(31), FAULTS(31)},
    {GATE(32), FAULTS(VMM_VECTOR_UNKNOWN)},
    {GATE(3) + 2, FAULTS(VMM_VECTOR_UNKNOWN)},
    {GATE(0) - 1, FAULTS(VMM_VECTOR_UNKNOWN)},
    {GATE(6), FAULTS(VMM_VECTOR_UNKNOWN), .no_regs = true},
    {GATE(6), FAULTS(VMM_VECTOR_UNKNOWN), .no_sregs = true},
};

/* What the CPU pushed when it faulted. */
static void put_fault_frame(struct vmm_vm *vm) {
    const uint64_t words[2] = {ERROR_CODE, RIP};
    memcpy(vm->memory + FAULT_STACK - 48, words, sizeof words);
}

static void wait_for_ends(uint32_t ends) {
    while (__atomic_load_n(&kernel.ends, __ATOMIC_SEQ_CST) < ends)
        (void)usleep(1000);
}

static void start(struct vmm_vm *vm) {
    NEED(vmm_start_threads(vm) == VMM_STEP_NONE);
    vmm_enter_phase(vm, VMM_CONFINED);
}

static void try(const struct row *row) {
    struct vmm_vm *vm = kernel_new(1);
    now = row;
    done = 0;
    kernel.rip = row->rip;
    kernel.cr2 = 0xdead;
    kernel.no_regs = row->no_regs;
    kernel.no_sregs = row->no_sregs;
    put_fault_frame(vm);
    vmm_watchdog_install(vm);
    start(vm);
    struct vmm_event event;
    do {
        NEED(kernel_event(&event));
    } while (event.kind == VMM_EVENT_READY);
    NEED(event.kind == row->kind && event.status == row->status && event.error_code == row->error_code);
    if (row->kind == VMM_EVENT_FAULT) {
        NEED(event.vector == row->vector);
        NEED(event.rip == (row->vector == VMM_VECTOR_UNKNOWN ? 0 : RIP));
        NEED(event.address == (row->vector == 14 ? 0xdead : 0));
    }
    wait_for_ends((uint32_t)(row - rows) + 1);
    kernel_delete(vm);
}

/* ---- several vCPUs */

static uint32_t gate;

/* The first gets ready; then all of them give up at once. */
static int everybody_ends(struct vmm_cpu *cpu) {
    struct kvm_run *run = cpu->run;
    run->exit_reason = KVM_EXIT_IO;
    run->io.direction = KVM_EXIT_IO_OUT;
    run->io.port = CAFE_PORT;
    run->io.size = 1;
    run->io.count = 1;
    run->io.data_offset = PORT_DATA;
    run->s.regs.regs.rdi = CAFE_E_LIMIT;
    const bool first = cpu->number == 0 && cpu->vm->phase != VMM_READY;
    ((uint8_t *)run)[PORT_DATA] = first ? CAFE_EXIT_READY : CAFE_EXIT_ABORT;
    if (!first) {
        (void)__atomic_add_fetch(&gate, 1, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&gate, __ATOMIC_SEQ_CST) < 4)
            continue;
    }
    return 0;
}

/* One event, and the regions that are taken are told. Those that lost wait for a process end that never comes
 * here, in a VM that is therefore not freed. */
static void one_end_is_told(void) {
    struct vmm_vm *vm = kernel_new(4);
    const uint32_t ends = kernel.ends;
    kernel.enclave = everybody_ends;
    vm->regions[1].taken = true;
    start(vm);
    (void)kernel_need(VMM_EVENT_READY);
    (void)kernel_need(VMM_EVENT_ABORT);
    wait_for_ends(ends + 1);
    (void)usleep(50000);
    NEED(kernel.ends == ends + 1);
    NEED(vmm_header(vm, 1)->state == CAFE_CHANNEL_DEAD && vmm_header(vm, 1)->status >= CAFE_E_LIMIT);
    NEED(vmm_header(vm, 0)->state == CAFE_CHANNEL_STARTING);
    NEED(recv(kernel_agent, &(struct vmm_event){0}, sizeof(struct vmm_event), MSG_DONTWAIT) < 0);
    kernel.enclave = enclave;
}

/* Only the first vCPU can be ready. */
static int second_says_ready(struct vmm_cpu *cpu) {
    if (cpu->number == 0 && cpu->vm->phase == VMM_READY)
        for (;;)
            (void)pause();
    gate = 4;
    (void)everybody_ends(cpu);
    ((uint8_t *)cpu->run)[PORT_DATA] = CAFE_EXIT_READY;
    return 0;
}

static void others_are_not_ready(void) {
    struct vmm_vm *vm = kernel_new(2);
    const uint32_t ends = kernel.ends;
    kernel.enclave = second_says_ready;
    start(vm);
    (void)kernel_need(VMM_EVENT_READY);
    NEED(kernel_need(VMM_EVENT_ABORT).status == CAFE_E_ABORT);
    wait_for_ends(ends + 1); /* the first vCPU's thread stays: its VM is not freed, nothing runs after this */
}

static void no_thread(void) {
    struct vmm_vm *vm = kernel_new(2);
    kernel.fail_thread = 1;
    NEED(vmm_start_threads(vm) == VMM_STEP_THREADS && errno == EAGAIN);
    kernel_delete(vm);
}

/* An agent that does not listen, or has gone, keeps nobody. */
static void nobody_listens(void) {
    const struct vmm_event event = {.kind = VMM_EVENT_READY};
    struct vmm_vm *vm = kernel_new(1);
    for (uint32_t i = 0; i < 5000; i++)
        vmm_send(&event);
    NEED(close(kernel_agent) == 0);
    vmm_send(&event);
    kernel_delete(vm);
}

int main(void) {
    kernel.enclave = enclave;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        try(&rows[i]);
    one_end_is_told();
    others_are_not_ready();
    no_thread();
    nobody_listens();
    (void)puts("all good");
    return 0;
}
