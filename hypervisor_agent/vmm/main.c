/* main.c - one enclave, from the agent's configuration on descriptor 3 to its end. */
#define _GNU_SOURCE
#include "vmm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define PASSED_DESCRIPTORS 2

/* Never blocks and never raises SIGPIPE: an agent that does not listen must not keep a dead enclave alive. */
void vmm_send(const struct vmm_event *event) {
    (void)send(VMM_FD, event, sizeof *event, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Exactly one configuration with exactly two descriptors. */
static enum vmm_step receive(struct vmm_config *config, int descriptors[PASSED_DESCRIPTORS]) {
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(PASSED_DESCRIPTORS * sizeof(int))];
    } control;
    struct iovec body = {.iov_base = config, .iov_len = sizeof *config};
    struct msghdr message = {
        .msg_iov = &body, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
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
        passed->cmsg_len != CMSG_LEN(PASSED_DESCRIPTORS * sizeof(int)))
        return VMM_STEP_RECEIVE;
    memcpy(descriptors, CMSG_DATA(passed), PASSED_DESCRIPTORS * sizeof(int));
    return VMM_STEP_NONE;
}

/* Everything costly and independent of the enclave comes before the wait, so that a spare VMM starts fast. */
static enum vmm_step prepare(struct vmm_vm *vm) {
    int descriptors[PASSED_DESCRIPTORS];
    enum vmm_step failed = vmm_isolate();
    if (!failed)
        failed = vmm_create(vm);
    if (!failed)
        failed = receive(&vm->config, descriptors);
    if (failed)
        return failed;
    errno = EINVAL;
    if (vmm_config_problem(&vm->config))
        return VMM_STEP_CONFIG;
    failed = vmm_map(vm, descriptors[0], descriptors[1]);
    if (!failed)
        failed = vmm_set_cpu(vm);
    vmm_watchdog_install(vm->run);
    (void)close(vm->vm); /* the vCPU holds the VM; nothing can be added to it any more */
    (void)close(vm->kvm);
    return failed ? failed : vmm_confine(vm->vcpu);
}

static enum cafe_status channel_status(const struct vmm_event *end) {
    return end->kind == VMM_EVENT_HOST ? CAFE_E_HOST : (enum cafe_status)end->status;
}

int main(void) {
    static struct vmm_vm vm;
    enum vmm_step failed = prepare(&vm);
    if (failed) {
        struct vmm_event event = {.kind = VMM_EVENT_HOST, .status = (uint32_t)errno, .rip = failed};
        vmm_send(&event);
        _exit(EXIT_FAILURE);
    }
    struct vmm_event end = vmm_run(&vm);
    vmm_mark(&vm, CAFE_CHANNEL_DEAD, channel_status(&end));
    vmm_send(&end);
    _exit(EXIT_SUCCESS);
}
