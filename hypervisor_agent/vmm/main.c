/* main.c - one enclave, from the agent's configuration on descriptor 3 to its end. */
#define _GNU_SOURCE
#include "vmm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* Exactly one configuration with exactly one descriptor. */
static enum vmm_step receive(struct vmm_config *config, int *memory_fd) {
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec body = {.iov_base = config, .iov_len = sizeof *config};
    struct msghdr message = {
        .msg_iov = &body, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_LEN(sizeof(int))};
    ssize_t got;
    do {
        got = recvmsg(VMM_FD, &message, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return VMM_STEP_RECEIVE;
    errno = EPROTO;
    const struct cmsghdr *passed = CMSG_FIRSTHDR(&message);
    if (got != (ssize_t)sizeof *config || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || !passed ||
        passed->cmsg_level != SOL_SOCKET || passed->cmsg_type != SCM_RIGHTS ||
        passed->cmsg_len != CMSG_LEN(sizeof(int)))
        return VMM_STEP_RECEIVE;
    memcpy(memory_fd, CMSG_DATA(passed), sizeof *memory_fd);
    return VMM_STEP_NONE;
}

/* Everything costly and independent of the enclave comes before the wait, so that a spare VMM starts fast. */
static enum vmm_step wait_for_enclave(struct vmm_vm *vm, int *memory_fd) {
    enum vmm_step failed = vmm_isolate();
    if (!failed)
        failed = vmm_create(vm);
    if (!failed)
        failed = receive(&vm->config, memory_fd);
    if (failed)
        return failed;
    errno = EINVAL;
    return vmm_config_problem(&vm->config) ? VMM_STEP_CONFIG : VMM_STEP_NONE;
}

static enum vmm_step set_up(struct vmm_vm *vm, int memory_fd) {
    enum vmm_step failed = vmm_create_cpus(vm);
    if (!failed)
        failed = vmm_map(vm, memory_fd);
    for (uint32_t i = 0; !failed && i < vm->config.vcpu_count; i++)
        failed = vmm_set_cpu(&vm->cpus[i]);
    (void)close(vm->vm); /* the vCPUs hold the VM; nothing can be added to it any more */
    (void)close(vm->kvm);
    if (failed)
        return failed;
    vmm_watchdog_install(vm);
    failed = vmm_start_threads(vm);
    return failed ? failed : vmm_confine(vm->config.vcpu_count);
}

int main(void) {
    static struct vmm_vm vm;
    int memory_fd;
    enum vmm_step failed = wait_for_enclave(&vm, &memory_fd);
    if (!failed)
        failed = set_up(&vm, memory_fd);
    if (failed) {
        const struct vmm_event event = {.kind = VMM_EVENT_HOST, .status = (uint32_t)errno, .rip = failed};
        vmm_send(&event);
        _exit(EXIT_FAILURE);
    }
    vmm_enter_phase(&vm, VMM_CONFINED);
    vmm_control(&vm);
    _exit(EXIT_FAILURE); /* the agent has gone, or speaks nonsense: what else would end the enclave */
}
