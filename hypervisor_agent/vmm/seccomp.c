/* seccomp.c - what is left to a VMM that runs secret code: its vCPU, futexes, a timer, its end. */
#define _GNU_SOURCE
#include "vmm.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, field))
#define ARGUMENT(n)                                                                                          \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(offsetof(struct seccomp_data, args) + 8u * (n)))
#define UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), 0, (skip))
#define IF(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), (skip), 0)
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define KILL BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)
#define ALLOW_CALL(number) UNLESS(number, 1), ALLOW

enum vmm_step vmm_confine(int vcpu) {
    struct sock_filter filter[] = {
        LOAD(arch),
        IF(AUDIT_ARCH_X86_64, 1),
        KILL,
        LOAD(nr),
        /* ioctl on the vCPU only: run it; read its registers when it has faulted. */
        UNLESS(SYS_ioctl, 9),
        ARGUMENT(0),
        IF(vcpu, 1),
        KILL,
        ARGUMENT(1),
        IF(KVM_RUN, 3),
        IF(KVM_GET_REGS, 2),
        IF(KVM_GET_SREGS, 1),
        KILL,
        ALLOW,
        /* futex: sleep on the bell, wake guest threads. No other operation. */
        UNLESS(SYS_futex, 5),
        ARGUMENT(1),
        IF(FUTEX_WAIT, 2),
        IF(FUTEX_WAKE, 1),
        KILL,
        ALLOW,
        /* setitimer: the watchdog's tick, armed only while the enclave is awake. */
        ALLOW_CALL(SYS_setitimer),
        /* rt_sigreturn: the end of the tick's handler. */
        ALLOW_CALL(SYS_rt_sigreturn),
        /* clock_gettime: the deadline, where the vDSO cannot serve it. */
        ALLOW_CALL(SYS_clock_gettime),
        /* sendto: an event to the agent, on its descriptor only. */
        UNLESS(SYS_sendto, 4),
        ARGUMENT(0),
        IF(VMM_FD, 1),
        KILL,
        ALLOW,
        /* exit_group: the end. */
        ALLOW_CALL(SYS_exit_group),
        KILL,
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0 ? VMM_STEP_NONE : VMM_STEP_SECCOMP;
}
