/* seccomp.c - what is left to a VMM that runs secret code: its vCPU, futexes, a timer, its end. */
#define _GNU_SOURCE
#include "vmm.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449 /* Linux 5.16 */
#endif

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, field))
#define ARGUMENT(n)                                                                                          \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(offsetof(struct seccomp_data, args) + 8u * (n)))
#define UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), 0, (skip))
#define IF(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), (skip), 0)
/* Go on with the next instruction if the word is `value` or more, else skip. */
#define BELOW(value, skip) BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (uint32_t)(value), 0, (skip))
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define KILL BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
#define ALLOW_CALL(number) UNLESS(number, 1), ALLOW

enum vmm_step vmm_confine(uint32_t vcpu_count) {
    struct sock_filter filter[] = {
        LOAD(arch),
        IF(AUDIT_ARCH_X86_64, 1),
        KILL,
        LOAD(nr),
        /* ioctl on a vCPU only: run it; read its registers when it has faulted. */
        UNLESS(SYS_ioctl, 10),
        ARGUMENT(0),
        BELOW(VMM_FIRST_VCPU_FD, 1),
        BELOW(VMM_FIRST_VCPU_FD + vcpu_count, 1),
        KILL,
        ARGUMENT(1),
        IF(KVM_RUN, 3),
        IF(KVM_GET_REGS, 2),
        IF(KVM_GET_SREGS, 1),
        KILL,
        ALLOW,
        /* futex: wake guest threads, wait for another thread of this process. No other operation. */
        UNLESS(SYS_futex, 5),
        ARGUMENT(1),
        IF(FUTEX_WAIT, 2),
        IF(FUTEX_WAKE, 1),
        KILL,
        ALLOW,
        /* futex_waitv: sleep on all bells. */
        ALLOW_CALL(SYS_futex_waitv),
        /* sched_yield: the enclave waits for another vCPU of its own, or we for a lock. */
        ALLOW_CALL(SYS_sched_yield),
        /* setitimer: the watchdog's tick, armed only while the enclave is awake. */
        ALLOW_CALL(SYS_setitimer),
        /* tgkill: the watchdog interrupts a vCPU of its own process, with its own signal. */
        UNLESS(SYS_tgkill, 7),
        ARGUMENT(0),
        IF(getpid(), 1),
        KILL,
        ARGUMENT(2),
        IF(VMM_KICK, 1),
        KILL,
        ALLOW,
        /* rt_sigreturn: the end of a tick's or kick's handler. */
        ALLOW_CALL(SYS_rt_sigreturn),
        /* clock_gettime: the deadline, where the vDSO cannot serve it. */
        ALLOW_CALL(SYS_clock_gettime),
        /* recvmsg: a command of the agent, on its descriptor only. */
        UNLESS(SYS_recvmsg, 4),
        ARGUMENT(0),
        IF(VMM_FD, 1),
        KILL,
        ALLOW,
        /* sendto: an event to the agent, on its descriptor only. */
        UNLESS(SYS_sendto, 4),
        ARGUMENT(0),
        IF(VMM_FD, 1),
        KILL,
        ALLOW,
        /* fcntl and lseek: is the region that came with a command sealed, and of the right size? */
        UNLESS(SYS_fcntl, 4),
        ARGUMENT(1),
        IF(F_GET_SEALS, 1),
        KILL,
        ALLOW,
        ALLOW_CALL(SYS_lseek),
        /* mmap: a region into its window, or nothing in its place. Never executable, never elsewhere by
           choice. */
        UNLESS(SYS_mmap, 8),
        ARGUMENT(2),
        IF(PROT_READ | PROT_WRITE, 1),
        KILL,
        ARGUMENT(3),
        IF(MAP_SHARED | MAP_FIXED, 2),
        IF(MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, 1),
        KILL,
        ALLOW,
        /* close: the descriptor of a region that was mapped. */
        ALLOW_CALL(SYS_close),
        /* exit_group: the end. */
        ALLOW_CALL(SYS_exit_group),
        KILL,
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};
    const long failed = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    return failed == 0 ? VMM_STEP_NONE : VMM_STEP_SECCOMP;
}
