/* control.c - the agent's side of a running enclave: its commands in, events out. */
#define _GNU_SOURCE
#include "vmm.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* Never blocks and never raises SIGPIPE: an agent that does not listen must not keep a dead enclave alive. */
void vmm_send(const struct vmm_event *event) {
    (void)send(VMM_FD, event, sizeof *event, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* One command; its descriptor or -1. False: not a command, or the agent has gone. */
static bool receive(struct vmm_command *command, int *fd) {
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec body = {.iov_base = command, .iov_len = sizeof *command};
    struct msghdr message = {
        .msg_iov = &body, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_LEN(sizeof *fd)};
    const ssize_t got = recvmsg(VMM_FD, &message, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *passed = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    *fd = -1;
    if (passed && passed->cmsg_level == SOL_SOCKET && passed->cmsg_type == SCM_RIGHTS &&
        passed->cmsg_len == CMSG_LEN(sizeof *fd))
        memcpy(fd, CMSG_DATA(passed), sizeof *fd);
    return got == (ssize_t)sizeof *command && !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC));
}

static bool obey(struct vmm_vm *vm, const struct vmm_command *command, int fd) {
    if (command->kind == VMM_ATTACH && fd >= 0) {
        const struct vmm_event event = vmm_attach(vm, fd);
        vmm_send(&event);
        return true;
    }
    if (command->kind == VMM_DETACH && fd < 0) {
        vmm_detach(vm, command->region);
        return true;
    }
    return false;
}

/* A tick of the watchdog interrupts the wait. */
void vmm_control(struct vmm_vm *vm) {
    for (;;) {
        struct vmm_command command;
        int fd;
        errno = 0;
        if (receive(&command, &fd)) {
            if (!obey(vm, &command, fd))
                return;
        } else if (errno != EINTR) {
            return;
        } else {
            vmm_watchdog_look(vm);
        }
    }
}
