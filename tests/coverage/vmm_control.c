/* vmm_control.c - what the agent may send to a running enclave, and what it hands over as a channel. */
#define _GNU_SOURCE
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

static struct vmm_event attach(struct vmm_vm *vm, int fd) {
    (void)vm;
    kernel_command(VMM_ATTACH, 0, &fd, 1);
    (void)close(fd);
    NEED(shutdown(kernel_agent, SHUT_WR) == 0); /* the loop ends after this command */
    vmm_control(vm);
    const struct vmm_event event = kernel_need(VMM_EVENT_ATTACHED);
    return event;
}

/* A socket serves one conversation here: the agent's half is shut down to end the loop. */
static struct vmm_event attach_anew(struct vmm_vm *vm, int fd) {
    int pair[2];
    NEED(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    NEED(dup2(pair[0], kernel_agent) == kernel_agent && dup2(pair[1], VMM_FD) == VMM_FD);
    (void)close(pair[0]);
    (void)close(pair[1]);
    return attach(vm, fd);
}

static void regions_come_and_go(void) {
    struct vmm_vm *vm = kernel_new(1);
    const int first = kernel_region();
    struct cafe_slot *slot = mmap(NULL, SLOT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, first, 4096);
    NEED(slot != MAP_FAILED);
    slot->request = 7;
    const struct vmm_event event = attach_anew(vm, first);
    NEED(event.status == 0 && event.vector == 0 && slot->reply == 7 && vm->regions[0].taken);
    NEED(vm->monitor->attached[0] == 1 && vmm_header(vm, 0)->state == CAFE_CHANNEL_READY);
    for (uint32_t i = 1; i < REGIONS; i++)
        NEED(attach_anew(vm, kernel_region()).vector == i);
    NEED(attach_anew(vm, kernel_region()).status == EBUSY);
    vmm_detach(vm, REGIONS); /* there is none */
    vmm_detach(vm, 0);
    vmm_detach(vm, 0); /* nobody has it */
    NEED(vm->monitor->attached[0] == 2 && vmm_slot(vm, 0, 0)->request == 0 && slot->request == 7);
    NEED(attach_anew(vm, kernel_region()).status == EBUSY); /* a call may be left there */
    vm->monitor->settled[0] = 2;
    NEED(attach_anew(vm, kernel_region()).vector == 0 && vm->monitor->attached[0] == 3);
    (void)munmap(slot, SLOT_BYTES);
    kernel_delete(vm);
}

static void what_is_no_region(void) {
    struct vmm_vm *vm = kernel_new(1);
    int ends[2];
    NEED(pipe(ends) == 0);
    NEED(attach_anew(vm, ends[0]).status != 0 && close(ends[1]) == 0); /* has no seals */
    kernel.fail_lseek = 1;
    NEED(attach_anew(vm, kernel_region()).status == ESPIPE);
    NEED(attach_anew(vm, kernel_file(REGION_BYTES, F_SEAL_GROW)).status == EINVAL);
    NEED(attach_anew(vm, kernel_file(REGION_BYTES + 4096, F_SEAL_SHRINK)).status == EINVAL);
    NEED(attach_anew(vm, kernel_file(REGION_BYTES, F_SEAL_SHRINK | F_SEAL_WRITE)).status == EPERM);
    kernel.fail_mmap = 1;
    NEED(attach_anew(vm, kernel_region()).status == ENOMEM && !vm->regions[0].taken);
    NEED(attach_anew(vm, kernel_region()).status == 0);
    kernel.fail_mmap = 1; /* what a call still writes must not reach the process: the enclave ends */
    NEED(EXITS(vmm_detach(vm, 0), 1));
    kernel_delete(vm);
}

static void a_dead_region_wakes_its_callers(void) {
    struct vmm_vm *vm = kernel_new(1);
    NEED(attach_anew(vm, kernel_region()).status == 0);
    vmm_mark(vm, 0, CAFE_CHANNEL_DEAD, CAFE_E_FAULT);
    NEED(vmm_header(vm, 0)->state == CAFE_CHANNEL_DEAD && vmm_header(vm, 0)->status == CAFE_E_FAULT);
    kernel_delete(vm);
}

/* Each ends the loop, and so the enclave. */
static void commands_that_do_not_parse(void) {
    const int fd = kernel_region(), two[2] = {fd, fd};
    const struct {
        uint32_t kind, bytes;
        int fds;
    } bad[] = {{VMM_ATTACH, 8, 0}, {VMM_DETACH, 8, 1}, {0, 8, 0}, {3, 8, 1}, {VMM_ATTACH, 8, 2}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct vmm_vm *vm = kernel_new(1);
        kernel_command(bad[i].kind, 0, two, bad[i].fds);
        vmm_control(vm);
        NEED(!vm->regions[0].taken);
        kernel_delete(vm);
    }
    const uint32_t words[3] = {VMM_DETACH, 0, 0};
    for (size_t bytes = 0; bytes <= sizeof words; bytes += 4) {
        struct vmm_vm *vm = kernel_new(1);
        NEED(send(kernel_agent, words, bytes, 0) == (ssize_t)bytes);
        NEED(bytes != 8 || shutdown(kernel_agent, SHUT_WR) == 0);
        vmm_control(vm);
        kernel_delete(vm);
    }
    (void)close(fd);
}

static int turn;

/* A kernel that would pass something else than descriptors; then a tick; then an error. */
static ssize_t strange(struct msghdr *message) {
    const struct vmm_command command = {.kind = VMM_DETACH, .region = 0};
    struct cmsghdr *passed = message->msg_control;
    memcpy(message->msg_iov->iov_base, &command, sizeof command);
    *passed = (struct cmsghdr){
        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    message->msg_flags = 0;
    switch (turn++) {
    case 0:
        passed->cmsg_level = SOL_SOCKET + 1;
        return sizeof command;
    case 1:
        passed->cmsg_type = SCM_CREDENTIALS;
        return sizeof command;
    case 2:
        passed->cmsg_len = CMSG_LEN(0);
        return sizeof command;
    case 3:
        errno = EINTR;
        return -1;
    default:
        errno = ECONNRESET;
        return -1;
    }
}

static void messages_of_a_strange_kernel(void) {
    struct vmm_vm *vm = kernel_new(1);
    kernel.receive = strange;
    vmm_control(vm);
    NEED(turn == 5);
    kernel.receive = NULL;
    kernel_delete(vm);
}

int main(void) {
    regions_come_and_go();
    what_is_no_region();
    a_dead_region_wakes_its_callers();
    commands_that_do_not_parse();
    messages_of_a_strange_kernel();
    (void)puts("all good");
    return 0;
}
