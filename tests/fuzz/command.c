/* command.c - what an agent sends to a VMM: messages of any length, with and without descriptors. */
#define _GNU_SOURCE
#include "vmm.h"
#include "fuzz.h"

#undef VMM_FD
static int vmm_fd; /* in place of the fixed one, which libFuzzer may need */
#define VMM_FD vmm_fd
#include "../../hypervisor_agent/vmm/control.c"

#include <fcntl.h>

static uint32_t attached, detached;

struct vmm_event vmm_attach(struct vmm_vm *vm, int fd) {
    FUZZ_NEED(vm != NULL && fcntl(fd, F_GETFD) >= 0);
    (void)close(fd);
    attached++;
    return (struct vmm_event){.kind = VMM_EVENT_ATTACHED};
}

void vmm_detach(struct vmm_vm *vm, uint32_t region) {
    FUZZ_NEED(vm != NULL);
    detached += region < CAFE_MAX_REGIONS;
}

void vmm_watchdog_look(struct vmm_vm *vm) {
    (void)vm;
}

static void send_one(int agent, struct fuzz_input *input) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(3 * sizeof(int))];
    } control;
    uint8_t body[2 * sizeof(struct vmm_command)];
    const uint8_t shape = fuzz_byte(input);
    const uint32_t kind = shape >> 2 & 3, descriptors = shape & 3;
    const int fds[3] = {agent, agent, agent};
    fuzz_take(input, body, sizeof body);
    if (shape >= 128) {
        memcpy(body, &kind, sizeof kind);
    }
    struct iovec piece = {body, shape >= 128 ? sizeof(struct vmm_command) : shape >> 4};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    memset(&control, 0, sizeof control);
    if (descriptors > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(descriptors * sizeof(int));
        struct cmsghdr *part = CMSG_FIRSTHDR(&message);
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(descriptors * sizeof(int));
        memcpy(CMSG_DATA(part), fds, descriptors * sizeof(int));
    }
    (void)sendmsg(agent, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct vmm_vm vm;
    struct fuzz_input input = {data, size};
    int pair[2];
    FUZZ_NEED(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    vmm_fd = pair[0];
    for (int i = 0; i < 8 && input.left > 0; i++) {
        send_one(pair[1], &input);
    }
    (void)shutdown(pair[1], SHUT_WR);
    vmm_control(&vm); /* returns: the agent has gone, or it said something that is no command */
    for (int fd = pair[1] + 1; fd < pair[1] + 16; fd++) {
        (void)close(fd); /* what came with a message that is no command: the VMM would end now */
    }
    (void)close(pair[0]);
    (void)close(pair[1]);
    return 0;
}
