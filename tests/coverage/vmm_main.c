/* vmm_main.c - the one message a VMM starts from, and each step of setting up that may fail. */
#define _GNU_SOURCE
#include "kernel.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

int vmm_main(void); /* main.c's */

static enum vmm_step fails;
static uint32_t configured, installed;
static bool bad_config;

static enum vmm_step step(enum vmm_step step) {
    errno = EPERM;
    return step == fails ? step : VMM_STEP_NONE;
}

enum vmm_step vmm_isolate(void) {
    return step(VMM_STEP_ISOLATE);
}

enum vmm_step vmm_create(struct vmm_vm *vm) {
    kernel_vm = vm;
    NEED((vm->kvm = dup(0)) >= 0 && (vm->vm = dup(0)) >= 0); /* errno outlasts closing them */
    return step(VMM_STEP_CREATE_VM);
}

const char *vmm_config_problem(const struct vmm_config *config) {
    configured++;
    return bad_config || config->vcpu_count == 0 ? "bad" : NULL;
}

enum vmm_step vmm_create_cpus(struct vmm_vm *vm) {
    (void)vm;
    return step(VMM_STEP_CREATE_VCPU);
}

enum vmm_step vmm_map(struct vmm_vm *vm, int memory_fd) {
    (void)vm;
    NEED(close(memory_fd) == 0);
    return step(VMM_STEP_MAP);
}

enum vmm_step vmm_set_cpu(const struct vmm_cpu *cpu) {
    return cpu == &kernel_vm->cpus[1] ? step(VMM_STEP_STATE) : VMM_STEP_NONE;
}

void vmm_watchdog_install(struct vmm_vm *vm) {
    (void)vm;
    installed++;
}

enum vmm_step vmm_start_threads(struct vmm_vm *vm) {
    (void)vm;
    return step(VMM_STEP_THREADS);
}

enum vmm_step vmm_confine(uint32_t vcpu_count) {
    NEED(vcpu_count == 2);
    return step(VMM_STEP_SECCOMP);
}

void vmm_enter_phase(struct vmm_vm *vm, enum vmm_phase phase) {
    vm->phase = phase;
}

struct vmm_event vmm_attach(struct vmm_vm *vm, int fd) {
    NEED(!vm && fd < 0);
    return (struct vmm_event){0};
}

void vmm_detach(struct vmm_vm *vm, uint32_t region) {
    NEED(!vm && region);
}

void vmm_watchdog_look(struct vmm_vm *vm) {
    NEED(!vm);
}

static struct vmm_config config;

static void send_config(size_t bytes, const int *fds, int count) {
    char data[sizeof config + 8] = {0};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(4 * sizeof(int))];
    } control = {0};
    struct iovec body = {.iov_base = data, .iov_len = bytes};
    struct msghdr message = {.msg_iov = &body, .msg_iovlen = 1};
    config.vcpu_count = 2;
    memcpy(data, &config, sizeof config);
    if (count > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
        control.header = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
                                          .cmsg_type = SCM_RIGHTS,
                                          .cmsg_len = CMSG_LEN((size_t)count * sizeof(int))};
        memcpy(CMSG_DATA(&control.header), fds, (size_t)count * sizeof(int));
    }
    NEED(sendmsg(kernel_agent, &message, 0) == (ssize_t)bytes);
}

static void fresh(void) {
    kernel_delete(kernel_new(1));
}

static void try(enum vmm_step failing) {
    const int fd = kernel_region();
    fresh();
    fails = failing;
    send_config(sizeof config, &fd, 1);
    NEED(shutdown(kernel_agent, SHUT_WR) == 0);
    NEED(EXITS(vmm_main(), EXIT_FAILURE));
    if (failing == VMM_STEP_NONE) {
        NEED(kernel_vm->phase == VMM_CONFINED && installed > 0);
    } else {
        const struct vmm_event event = kernel_need(VMM_EVENT_HOST);
        NEED(event.rip == failing && event.status == (failing == VMM_STEP_CONFIG ? EINVAL : EPERM));
    }
    fails = VMM_STEP_NONE;
    (void)close(fd);
}

static void refused(void) {
    NEED(EXITS(vmm_main(), EXIT_FAILURE));
    const struct vmm_event event = kernel_need(VMM_EVENT_HOST);
    NEED(event.rip == VMM_STEP_RECEIVE && event.status != 0);
}

static void messages_that_do_not_parse(void) {
    const int fd = kernel_region(), two[2] = {fd, fd};
    const size_t bytes[] = {0, 1, sizeof config - 1, sizeof config + 1};
    for (size_t i = 0; i < sizeof bytes / sizeof bytes[0]; i++) {
        fresh();
        send_config(bytes[i], &fd, 1);
        refused();
    }
    for (int count = 0; count <= 2; count += 2) {
        fresh();
        send_config(sizeof config, two, count);
        refused();
    }
    fresh();
    NEED(close(kernel_agent) == 0); /* the agent has gone */
    NEED(EXITS(vmm_main(), EXIT_FAILURE));
    (void)close(fd);
}

static int turn;

/* A signal; then what no kernel passes. */
static ssize_t strange(struct msghdr *message) {
    struct cmsghdr *passed = message->msg_control;
    *passed = (struct cmsghdr){
        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    message->msg_flags = 0;
    switch (turn++) {
    case 0:
    case 1:
        errno = turn == 1 ? EINTR : ECONNRESET;
        return -1;
    case 2:
        passed->cmsg_level++;
        break;
    case 3:
        passed->cmsg_type = SCM_CREDENTIALS;
        break;
    default:
        passed->cmsg_len = CMSG_LEN(0);
    }
    return sizeof config;
}

static void messages_of_a_strange_kernel(void) {
    for (kernel.receive = strange; turn < 5;) {
        fresh();
        refused();
    }
    kernel.receive = NULL;
}

int main(void) {
    const enum vmm_step steps[] = {VMM_STEP_ISOLATE, VMM_STEP_CREATE_VM, VMM_STEP_CREATE_VCPU, VMM_STEP_MAP,
                                   VMM_STEP_STATE,   VMM_STEP_THREADS,   VMM_STEP_SECCOMP,     VMM_STEP_NONE};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
        try(steps[i]);
    bad_config = true;
    try(VMM_STEP_CONFIG);
    messages_that_do_not_parse();
    messages_of_a_strange_kernel();
    NEED(configured > 1);
    (void)puts("all good");
    return 0;
}
