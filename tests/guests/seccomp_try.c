/* seccomp_try.c - installs the VMM's system call filter and makes each call of a table in a child of its own.
 * A line for each: the table's word for it, and what became of the child. */
#define _GNU_SOURCE
#include "vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define VCPUS 2u
#define RW (PROT_READ | PROT_WRITE)
#define RWX (PROT_READ | PROT_WRITE | PROT_EXEC)
#define FIXED_SHARED (MAP_SHARED | MAP_FIXED)
#define FIXED_EMPTY (MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
#define FIRST ((uint64_t)VMM_FIRST_VCPU_FD)
#define OWN 0x600d600du /* stands for the child's own number */
#define OLD_GATE (-2)
#define THREAD_FLAGS 0x3d0f00u
#define CALLS 470 /* the highest number in Linux 6.16, and a few more */
#define URETPROBE 335
#define UPROBE 336

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

static char page[4096] __attribute__((aligned(4096)));

struct row {
    bool allowed;
    const char *name;
    long number;
    uint64_t arguments[6];
};
#define AT(pointer) (uintptr_t)(pointer)

/* What is refused is so by the filter alone: most of it would do no harm otherwise, or fail. */
static const struct row table[] = {
    {true, "ioctl KVM_RUN on the first vCPU", SYS_ioctl, {FIRST, KVM_RUN}},
    {true, "ioctl KVM_RUN on the last vCPU", SYS_ioctl, {FIRST + VCPUS - 1, KVM_RUN}},
    {true, "ioctl KVM_GET_REGS", SYS_ioctl, {FIRST, KVM_GET_REGS, AT(page)}},
    {true, "ioctl KVM_GET_SREGS", SYS_ioctl, {FIRST, KVM_GET_SREGS, AT(page)}},
    {false, "ioctl on another descriptor", SYS_ioctl, {FIRST + VCPUS, KVM_RUN}},
    {false, "ioctl on the socket", SYS_ioctl, {VMM_FD, KVM_RUN}},
    {false, "ioctl on stdin", SYS_ioctl, {0, KVM_RUN}},
    {false, "ioctl on the highest descriptor", SYS_ioctl, {0xffffffff, KVM_RUN}},
    {false, "ioctl KVM_SET_REGS", SYS_ioctl, {FIRST, KVM_SET_REGS, AT(page)}},
    {false, "ioctl KVM_SET_SREGS", SYS_ioctl, {FIRST, KVM_SET_SREGS, AT(page)}},
    {false, "ioctl KVM_SET_MSRS", SYS_ioctl, {FIRST, KVM_SET_MSRS, AT(page)}},
    {false, "ioctl KVM_SET_CPUID2", SYS_ioctl, {FIRST, KVM_SET_CPUID2, AT(page)}},
    {false, "ioctl KVM_CREATE_VM", SYS_ioctl, {FIRST, KVM_CREATE_VM}},
    {false, "ioctl KVM_SET_USER_MEMORY_REGION", SYS_ioctl, {FIRST, KVM_SET_USER_MEMORY_REGION, AT(page)}},
    {true, "futex FUTEX_WAKE", SYS_futex, {AT(page), FUTEX_WAKE, 1}},
    {true, "futex FUTEX_WAIT", SYS_futex, {AT(page), FUTEX_WAIT, 1}},
    {false, "futex FUTEX_WAIT_PRIVATE", SYS_futex, {AT(page), FUTEX_WAIT_PRIVATE, 1}},
    {false, "futex FUTEX_REQUEUE", SYS_futex, {AT(page), FUTEX_REQUEUE, 0, 0, AT(page)}},
    {false, "futex FUTEX_LOCK_PI", SYS_futex, {AT(page), FUTEX_LOCK_PI}},
    {false, "futex FUTEX_WAKE_OP", SYS_futex, {AT(page), FUTEX_WAKE_OP, 0, 0, AT(page)}},
    {true, "futex_waitv", SYS_futex_waitv, {AT(page), 0}},
    {true, "sched_yield", SYS_sched_yield, {0}},
    {true, "setitimer", SYS_setitimer, {ITIMER_REAL, AT(page)}},
    {true, "clock_gettime", SYS_clock_gettime, {CLOCK_MONOTONIC, AT(page)}},
    {true, "close", SYS_close, {0xffffffff}},
    {true, "lseek", SYS_lseek, {0, 0, SEEK_END}},
    {true, "tgkill of its own thread, by the kick", SYS_tgkill, {OWN, OWN, VMM_KICK}},
    {false, "tgkill, another signal", SYS_tgkill, {OWN, OWN, SIGTERM}},
    {false, "tgkill, no signal", SYS_tgkill, {OWN, OWN, 0}},
    {false, "tgkill of another process", SYS_tgkill, {1, 1, VMM_KICK}},
    {false, "tgkill of any process", SYS_tgkill, {(uint64_t)-1, OWN, VMM_KICK}},
    {false, "tkill", SYS_tkill, {OWN, VMM_KICK}},
    {false, "kill of itself", SYS_kill, {OWN, VMM_KICK}},
    {false, "kill of all", SYS_kill, {(uint64_t)-1, 0}},
    {false, "rt_sigqueueinfo", SYS_rt_sigqueueinfo, {OWN, VMM_KICK, AT(page)}},
    {false, "pidfd_send_signal", SYS_pidfd_send_signal, {0, VMM_KICK}},
    {true, "recvmsg on the socket", SYS_recvmsg, {VMM_FD, AT(page), MSG_DONTWAIT}},
    {false, "recvmsg on another descriptor", SYS_recvmsg, {VMM_FD + 1, AT(page), MSG_DONTWAIT}},
    {false, "recvfrom", SYS_recvfrom, {VMM_FD, AT(page), 1, MSG_DONTWAIT}},
    {false, "recvmmsg", SYS_recvmmsg, {VMM_FD, AT(page), 1, MSG_DONTWAIT}},
    {true, "sendto on the socket", SYS_sendto, {VMM_FD, AT(page), 1, MSG_DONTWAIT | MSG_NOSIGNAL}},
    {false, "sendto on another descriptor", SYS_sendto, {VMM_FD + 1, AT(page), 1, MSG_DONTWAIT}},
    {false, "sendmsg: it could pass descriptors", SYS_sendmsg, {VMM_FD, AT(page), MSG_DONTWAIT}},
    {false, "read", SYS_read, {VMM_FD, AT(page), 1}},
    {false, "write", SYS_write, {2, AT(page), 0}},
    {true, "fcntl F_GET_SEALS", SYS_fcntl, {0, F_GET_SEALS}},
    {false, "fcntl F_ADD_SEALS", SYS_fcntl, {0, F_ADD_SEALS, 0}},
    {false, "fcntl F_DUPFD", SYS_fcntl, {0, F_DUPFD, 100}},
    {false, "fcntl F_SETFL", SYS_fcntl, {0, F_SETFL, 0}},
    {false, "fcntl F_SETOWN", SYS_fcntl, {0, F_SETOWN, 1}},
    {true, "mmap of a file into its window", SYS_mmap, {AT(page), 4096, RW, FIXED_SHARED, 0xffffffff, 0}},
    {true, "mmap of nothing into a window", SYS_mmap, {AT(page), 4096, RW, FIXED_EMPTY, 0xffffffff, 0}},
    {false, "mmap executable", SYS_mmap, {AT(page), 4096, RWX, FIXED_EMPTY, 0xffffffff, 0}},
    {false, "mmap execute-only", SYS_mmap, {AT(page), 4096, PROT_EXEC, FIXED_SHARED, 0, 0}},
    {false, "mmap anywhere", SYS_mmap, {0, 4096, RW, MAP_PRIVATE | MAP_ANONYMOUS, 0xffffffff, 0}},
    {false, "mmap of a private file", SYS_mmap, {AT(page), 4096, RW, MAP_PRIVATE | MAP_FIXED, 0, 0}},
    {false, "mmap shared anywhere", SYS_mmap, {0, 4096, RW, MAP_SHARED, 0, 0}},
    {false, "mprotect", SYS_mprotect, {AT(page), 4096, RW}},
    {false, "munmap", SYS_munmap, {AT(page), 0}},
    {false, "mremap", SYS_mremap, {AT(page), 4096, 4096, 0}},
    {false, "brk", SYS_brk, {0}},
    {false, "memfd_create", SYS_memfd_create, {AT(page), 0}},
    {false, "open", SYS_open, {AT(page), O_RDONLY}},
    {false, "openat", SYS_openat, {(uint64_t)AT_FDCWD, AT(page), O_RDONLY}},
    {false, "socket", SYS_socket, {AF_UNIX, SOCK_STREAM, 0}},
    {false, "connect", SYS_connect, {VMM_FD, AT(page), 0}},
    {false, "dup", SYS_dup, {0}},
    {false, "dup3", SYS_dup3, {0, VMM_FD, 0}},
    {false, "execve", SYS_execve, {AT(page), 0, 0}},
    {false, "execveat", SYS_execveat, {0xffffffff, AT(page), 0, 0, 0}},
    {false, "clone", SYS_clone, {THREAD_FLAGS, 0}},
    {false, "clone3", SYS_clone3, {AT(page), 0}},
    {false, "fork", SYS_fork, {0}},
    {false, "ptrace", SYS_ptrace, {0, 0, 0, 0}},
    {false, "process_vm_readv", SYS_process_vm_readv, {OWN, 0, 0, 0, 0, 0}},
    {false, "pidfd_getfd", SYS_pidfd_getfd, {0xffffffff, 0, 0}},
    {false, "prctl", SYS_prctl, {0}},
    {false, "seccomp", SYS_seccomp, {0, 1, 0}},
    {false, "rt_sigaction", SYS_rt_sigaction, {SIGSYS, 0, 0, 8}},
    {false, "rt_sigprocmask", SYS_rt_sigprocmask, {0, 0, 0, 8}},
    {false, "io_uring_setup", SYS_io_uring_setup, {1, AT(page)}},
    {false, "bpf", SYS_bpf, {0, AT(page), 0}},
    {false, "userfaultfd", SYS_userfaultfd, {0}},
    {false, "exit of one thread", SYS_exit, {0}},
    {false, "a call of the i386 ABI", OLD_GATE, {0}},
    {false, "a call of the x32 ABI", 0x40000000 | SYS_ioctl, {FIRST, KVM_RUN}},
    {false, "a number beyond all calls", 100000, {0}},
    {true, "exit_group", SYS_exit_group, {0}},
};
#define ROWS (sizeof table / sizeof table[0])

static void handle(int number) {
    (void)number;
}

/* With the filter, as the VMM has it. */
static void child(const struct row *row) {
    uint64_t a[6];
    for (uint32_t i = 0; i < 6; i++)
        a[i] = row->arguments[i] == OWN ? (uint64_t)getpid() : row->arguments[i];
    (void)signal(VMM_KICK, handle); /* rt_sigreturn is called after the kick */
    if (vmm_confine(VCPUS) != VMM_STEP_NONE)
        _exit(3);
    if (row->number == OLD_GATE)
        __asm__ volatile("int $0x80" : : "a"(20L) : "memory", "cc"); /* i386's getpid */
    else
        (void)syscall(row->number, a[0], a[1], a[2], a[3], a[4], a[5]);
    _exit(0);
}

static const char *fate(int status) {
    if (WIFEXITED(status))
        return WEXITSTATUS(status) == 0 ? "lives" : "no filter";
    return WTERMSIG(status) == SIGSYS ? "killed" : "another signal";
}

static const char *try(const struct row *row) {
    const pid_t pid = fork();
    int status = 0;
    if (pid == 0)
        child(row);
    return pid > 0 && waitpid(pid, &status, 0) == pid ? fate(status) : "no child";
}

/* Any number but these ends it; of the last two Linux says itself that no filter is asked. */
static bool known(long number) {
    static const long calls[] = {SYS_ioctl,     SYS_futex,         SYS_futex_waitv,  SYS_sched_yield,
                                 SYS_setitimer, SYS_tgkill,        SYS_sendto,       SYS_recvmsg,
                                 SYS_fcntl,     SYS_lseek,         SYS_rt_sigreturn, SYS_mmap,
                                 SYS_close,     SYS_clock_gettime, SYS_exit_group,   URETPROBE,
                                 UPROBE};
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
        if (calls[i] == number)
            return true;
    return false;
}

static void child_with_zeros(long number) {
    if (vmm_confine(VCPUS) != VMM_STEP_NONE)
        _exit(3);
    (void)syscall(number, 0, 0, 0, 0, 0, 0);
    _exit(0);
}

static const char *try_number(long number) {
    const pid_t pid = fork();
    int status = 0;
    if (pid == 0)
        child_with_zeros(number);
    return pid > 0 && waitpid(pid, &status, 0) == pid ? fate(status) : "no child";
}

int main(void) {
    for (size_t i = 0; i < ROWS; i++)
        (void)printf("%s|%s|%s\n", table[i].allowed ? "lives" : "killed", try(&table[i]), table[i].name);
    for (long number = 0; number < CALLS; number++)
        if (!known(number))
            (void)printf("killed|%s|call %ld with zeros\n", try_number(number), number);
    return 0;
}
