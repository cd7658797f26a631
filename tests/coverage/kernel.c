/* kernel.c - see kernel.h. */
#define _GNU_SOURCE
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY_BYTES 65536u
#define MONITOR 4096u
#define STRIDE (REGION_BYTES + 4096u)
#define LATE_US 20000
#define EVENT_MS 5000

struct kernel kernel;
struct vmm_vm *kernel_vm;
__thread jmp_buf *kernel_exit;
__thread int kernel_status;
int kernel_agent = -1;
static __thread jmp_buf own_exit;

/* ---- the kernel */

int __wrap_ioctl(int fd, unsigned long request, ...);
void *__real_mmap(void *at, size_t bytes, int rights, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int rights, int flags, int fd, off_t offset);
off_t __real_lseek(int fd, off_t offset, int whence);
off_t __wrap_lseek(int fd, off_t offset, int whence);
ssize_t __real_recvmsg(int fd, struct msghdr *message, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *with);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *with);
_Noreturn void __wrap__exit(int status);

int __wrap_ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (request == KVM_RUN)
        return kernel.enclave(&kernel_vm->cpus[fd - VMM_FIRST_VCPU_FD]);
    errno = EIO;
    if (request == KVM_GET_REGS && !kernel.no_regs) {
        ((struct kvm_regs *)argument)->rip = kernel.rip;
        return 0;
    }
    if (request == KVM_GET_SREGS && !kernel.no_sregs) {
        ((struct kvm_sregs *)argument)->cr2 = kernel.cr2;
        return 0;
    }
    return -1;
}

void *__wrap_mmap(void *at, size_t bytes, int rights, int flags, int fd, off_t offset) {
    if (kernel.fail_mmap > 0) {
        kernel.fail_mmap--;
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return __real_mmap(at, bytes, rights, flags, fd, offset);
}

off_t __wrap_lseek(int fd, off_t offset, int whence) {
    if (kernel.fail_lseek > 0) {
        kernel.fail_lseek--;
        errno = ESPIPE;
        return -1;
    }
    return __real_lseek(fd, offset, whence);
}

ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags) {
    return kernel.receive ? kernel.receive(message) : __real_recvmsg(fd, message, flags);
}

struct late {
    void *(*run)(void *);
    void *with;
};

static void *start_late(void *argument) {
    const struct late late = *(struct late *)argument;
    free(argument);
    (void)usleep(LATE_US); /* whoever waits for it does wait */
    return late.run(late.with);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *with) {
    (void)how; /* sanitizers need more stack */
    if (kernel.fail_thread > 0) {
        kernel.fail_thread--;
        return EAGAIN;
    }
    struct late *late = malloc(sizeof *late);
    NEED(late);
    *late = (struct late){.run = run, .with = with};
    return __real_pthread_create(thread, NULL, start_late, late);
}

void __wrap__exit(int status) {
    kernel_status = status;
    if (kernel_exit)
        longjmp(*kernel_exit, 1);
    __atomic_store_n(&kernel_vm->lock, 0, __ATOMIC_SEQ_CST); /* who waits for it would have gone, too */
    (void)__atomic_add_fetch(&kernel.ends, 1, __ATOMIC_SEQ_CST);
    pthread_exit(NULL);
}

bool kernel_begin(void) {
    kernel_exit = &own_exit;
    return true;
}

bool kernel_stayed(void) {
    kernel_exit = NULL;
    return false;
}

bool kernel_left(int status) {
    kernel_exit = NULL;
    return kernel_status == status;
}

/* ---- the enclave */

static void *anonymous(size_t bytes) {
    void *at = __real_mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(at != MAP_FAILED);
    return at;
}

static void connect_agent(void) {
    int pair[2];
    NEED(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    (void)close(kernel_agent);
    kernel_agent = fcntl(pair[0], F_DUPFD_CLOEXEC, VMM_FIRST_VCPU_FD + (int)CAFE_MAX_VCPUS);
    NEED(kernel_agent >= 0 && close(pair[0]) == 0);
    if (pair[1] != VMM_FD) {
        NEED(dup2(pair[1], VMM_FD) == VMM_FD && close(pair[1]) == 0);
    }
}

struct vmm_vm *kernel_new(uint32_t vcpus) {
    struct vmm_vm *vm = calloc(1, sizeof *vm);
    NEED(vm);
    vm->config = (struct vmm_config){.memory_bytes = MEMORY_BYTES,
                                     .channel_stride = STRIDE,
                                     .region_bytes = REGION_BYTES,
                                     .slot_bytes = SLOT_BYTES,
                                     .region_count = REGIONS,
                                     .slot_count = SLOTS,
                                     .vcpu_count = vcpus,
                                     .fault_handler = HANDLERS,
                                     .deadline_ns = 40000000};
    vm->memory = anonymous(MEMORY_BYTES);
    vm->channels = anonymous(REGIONS * STRIDE);
    vm->monitor = (struct cafe_monitor *)(void *)(vm->memory + MONITOR);
    for (uint32_t i = 0; i < vcpus; i++) {
        vm->config.vcpus[i].fault_stack_gpa = FAULT_STACK;
        vm->cpus[i] = (struct vmm_cpu){
            .vm = vm, .number = i, .fd = VMM_FIRST_VCPU_FD + (int)i, .run = anonymous(2 * CAFE_PAGE)};
    }
    kernel_vm = vm;
    connect_agent();
    return vm;
}

void kernel_delete(struct vmm_vm *vm) {
    for (uint32_t i = 0; i < vm->config.vcpu_count; i++)
        (void)munmap(vm->cpus[i].run, 2 * CAFE_PAGE);
    (void)munmap(vm->memory, MEMORY_BYTES);
    (void)munmap(vm->channels, REGIONS * STRIDE);
    free(vm);
}

/* ---- the agent */

bool kernel_event(struct vmm_event *event) {
    struct pollfd ready = {.fd = kernel_agent, .events = POLLIN};
    int found;
    do {
        found = poll(&ready, 1, EVENT_MS);
    } while (found < 0 && errno == EINTR); /* a tick */
    return found == 1 && recv(kernel_agent, event, sizeof *event, MSG_DONTWAIT) == (ssize_t)sizeof *event;
}

struct vmm_event kernel_need(enum vmm_event_kind kind) {
    struct vmm_event event;
    NEED(kernel_event(&event));
    NEED(event.kind == kind);
    return event;
}

void kernel_command(uint32_t kind, uint32_t region, const int *fds, int count) {
    struct vmm_command command = {.kind = kind, .region = region};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(4 * sizeof(int))];
    } control = {0};
    struct iovec body = {.iov_base = &command, .iov_len = sizeof command};
    struct msghdr message = {.msg_iov = &body, .msg_iovlen = 1};
    if (count > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
        control.header = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
                                          .cmsg_type = SCM_RIGHTS,
                                          .cmsg_len = CMSG_LEN((size_t)count * sizeof(int))};
        memcpy(CMSG_DATA(&control.header), fds, (size_t)count * sizeof(int));
    }
    NEED(sendmsg(kernel_agent, &message, 0) == (ssize_t)sizeof command);
}

int kernel_file(uint64_t bytes, int seals) {
    const int fd = memfd_create("region", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    NEED(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    NEED(fcntl(fd, F_ADD_SEALS, seals) == 0);
    return fd;
}

int kernel_region(void) {
    return kernel_file(REGION_BYTES, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
}
