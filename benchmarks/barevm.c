/* barevm.c - what KVM itself costs, in ring 3 as an enclave. "life": create a VM with one vCPU, run it to its
 * first exit, destroy it. "region": a VM that has run gets a memory region of its caller's, and runs to its
 * first exit after using that. Prints median, p99 and mean. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "latency.h"

#define MEMORY_BYTES (2u << 20)
#define REGION_GPA MEMORY_BYTES
#define REGION_BYTES (36u << 10)
#define TSS 0x4000u
#define TSS_BYTES 104u
#define CODE 0x8000u

struct vm {
    int kvm, vm, vcpu;
    uint8_t *memory;
    struct kvm_run *run;
    size_t run_bytes;
};

/* Two pages of 2 MiB, for user and writing; a task segment whose bitmap allows every port up to 0x1f. */
static void fill(uint8_t *memory) {
    uint64_t *pml4 = (uint64_t *)(memory + 0x1000), *pdpt = (uint64_t *)(memory + 0x2000),
             *pd = (uint64_t *)(memory + 0x3000);
    pml4[0] = 0x2000 | 7;
    pdpt[0] = 0x3000 | 7;
    pd[0] = 0x87;
    pd[1] = REGION_GPA | 0x87;
    memory[TSS + 102] = TSS_BYTES;
    memory[TSS + TSS_BYTES + 4] = 0xff;
    /* out %al, $0x10; then again and again: mov 0x200000, %al; out %al, $0x10 */
    static const uint8_t code[] = {0xe6, 0x10, 0x8a, 0x04, 0x25, 0x00, 0x00,
                                   0x20, 0x00, 0xe6, 0x10, 0xeb, 0xf5};
    memcpy(memory + CODE, code, sizeof code);
}

static int enter_ring3(int vcpu) {
    struct kvm_sregs s;
    if (ioctl(vcpu, KVM_GET_SREGS, &s) < 0) {
        return -1;
    }
    struct kvm_segment code = {
        .limit = 0xffffffff, .selector = 0x33, .present = 1, .type = 11, .dpl = 3, .s = 1, .l = 1, .g = 1};
    struct kvm_segment data = {
        .limit = 0xffffffff, .selector = 0x2b, .present = 1, .type = 3, .dpl = 3, .s = 1, .db = 1, .g = 1};
    s.cs = code;
    s.ds = s.es = s.fs = s.gs = s.ss = data;
    s.tr =
        (struct kvm_segment){.base = TSS, .limit = TSS_BYTES + 4, .selector = 0x40, .present = 1, .type = 11};
    s.cr0 = 0x80050033;
    s.cr3 = 0x1000;
    s.cr4 = 0x620;
    s.efer = 0xd00;
    s.idt.limit = s.gdt.limit = 0;
    struct kvm_regs r = {.rip = CODE, .rflags = 2};
    return ioctl(vcpu, KVM_SET_SREGS, &s) < 0 ? -1 : ioctl(vcpu, KVM_SET_REGS, &r);
}

static int give(const struct vm *vm, uint32_t slot, uint64_t gpa, void *memory, uint64_t bytes) {
    struct kvm_userspace_memory_region region = {
        .slot = slot, .guest_phys_addr = gpa, .memory_size = bytes, .userspace_addr = (uint64_t)memory};
    return ioctl(vm->vm, KVM_SET_USER_MEMORY_REGION, &region);
}

static int run(const struct vm *vm) {
    return ioctl(vm->vcpu, KVM_RUN, 0) < 0 || vm->run->exit_reason != KVM_EXIT_IO ? -1 : 0;
}

static int create(struct vm *vm) {
    vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    vm->vm = ioctl(vm->kvm, KVM_CREATE_VM, 0);
    vm->memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (vm->kvm < 0 || vm->vm < 0 || vm->memory == MAP_FAILED ||
        give(vm, 0, 0, vm->memory, MEMORY_BYTES) < 0) {
        return -1;
    }
    fill(vm->memory);
    vm->vcpu = ioctl(vm->vm, KVM_CREATE_VCPU, 0);
    vm->run_bytes = (size_t)ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    vm->run = mmap(NULL, vm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu, 0);
    return vm->vcpu < 0 || vm->run == MAP_FAILED || enter_ring3(vm->vcpu) < 0 ? -1 : 0;
}

static void destroy(struct vm *vm) {
    munmap(vm->run, vm->run_bytes);
    close(vm->vcpu);
    close(vm->vm);
    close(vm->kvm);
    munmap(vm->memory, MEMORY_BYTES);
}

static int life(uint64_t *spent) {
    struct vm vm;
    uint64_t before = latency_now_ns();
    int failed = create(&vm) < 0 || run(&vm) < 0;
    destroy(&vm);
    *spent = latency_now_ns() - before;
    return failed;
}

static int send_fd(int socket, int fd) {
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    memset(&control, 0, sizeof control);
    struct iovec body = {.iov_base = &(char){1}, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &body, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *passed = CMSG_FIRSTHDR(&message);
    passed->cmsg_level = SOL_SOCKET;
    passed->cmsg_type = SCM_RIGHTS;
    passed->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(passed), &fd, sizeof fd);
    return sendmsg(socket, &message, 0) == 1 ? 0 : -1;
}

static int receive_fd(int socket) {
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    char byte;
    int fd = -1;
    struct iovec body = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &body, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    if (recvmsg(socket, &message, 0) == 1 && CMSG_FIRSTHDR(&message) != NULL) {
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    }
    return fd;
}

/* What a VMM of a pool does, and no more. */
static int be_pooled(int socket) {
    struct vm vm;
    latency_pin(latency_core("BENCH_CORE_1", 1));
    if (create(&vm) < 0 || run(&vm) < 0 || write(socket, "r", 1) != 1) {
        return 1;
    }
    int fd = receive_fd(socket);
    void *memory = mmap(NULL, REGION_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    int failed = memory == MAP_FAILED || give(&vm, 1, REGION_GPA, memory, REGION_BYTES) < 0 || run(&vm) < 0;
    return failed || write(socket, "a", 1) != 1;
}

static int pooled(uint64_t *spent) {
    int sockets[2], status = 0, fd = memfd_create("region", MFD_CLOEXEC);
    char byte;
    if (fd < 0 || ftruncate(fd, REGION_BYTES) < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets) < 0) {
        return -1;
    }
    pid_t child = fork();
    if (child == 0) {
        close(sockets[0]);
        _exit(be_pooled(sockets[1]));
    }
    close(sockets[1]);
    int failed = read(sockets[0], &byte, 1) != 1;
    usleep(5000); /* it waits by now */
    uint64_t before = latency_now_ns();
    failed = failed || send_fd(sockets[0], fd) < 0 || read(sockets[0], &byte, 1) != 1;
    *spent = latency_now_ns() - before;
    close(sockets[0]);
    close(fd);
    return waitpid(child, &status, 0) < 0 || status != 0 || failed;
}

int main(int argc, char **argv) {
    size_t count = argc > 1 ? (size_t)atoi(argv[1]) : 200;
    int (*one)(uint64_t *) = argc > 2 && strcmp(argv[2], "pooled") == 0 ? pooled : life;
    uint64_t *spent = calloc(count, sizeof *spent), total = 0;
    latency_pin(latency_core("BENCH_CORE_0", 0));
    for (size_t i = 0; spent != NULL && i < count; i++) {
        if (one(&spent[i]) != 0) {
            perror("KVM");
            return 1;
        }
        total += spent[i];
    }
    if (spent == NULL) {
        return 1;
    }
    latency_report(spent, count, total, total);
    return 0;
}
