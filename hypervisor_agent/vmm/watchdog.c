/* watchdog.c - ends a call that takes too long. Calls cross without an exit, so a timer looks at the monitor.
 * It ticks in the control thread, and only while some vCPU is awake. */
#define _GNU_SOURCE
#include "vmm.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define TICKS_PER_DEADLINE 8u
#define MIN_TICK_NS 2000000ull
#define MAX_TICK_NS 250000000ull
#define NS_PER_SECOND 1000000000ull

static __thread struct kvm_run *own_run;
static int process;

static void on_tick(int number) {
    (void)number; /* it has interrupted the control thread's recvmsg, which is all it is for */
}

/* Ends KVM_RUN, or the next one if the vCPU is just about to enter. */
static void on_kick(int number) {
    (void)number;
    __atomic_store_n(&own_run->immediate_exit, 1, __ATOMIC_RELAXED);
}

uint64_t vmm_now_ns(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail for this clock */
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

static void set_timer(uint64_t period_ns) {
    struct timeval period = {.tv_sec = (time_t)(period_ns / NS_PER_SECOND),
                             .tv_usec = (suseconds_t)(period_ns % NS_PER_SECOND / 1000)};
    struct itimerval timer = {.it_interval = period, .it_value = period};
    (void)setitimer(ITIMER_REAL, &timer, NULL); /* cannot fail with a valid period */
}

/* By the control thread, before the system call filter is installed. */
void vmm_watchdog_install(struct vmm_vm *vm) {
    struct sigaction tick = {.sa_handler = on_tick}, kick = {.sa_handler = on_kick}; /* neither restarts */
    process = getpid();
    (void)sigaction(SIGALRM, &tick, NULL); /* cannot fail for these signals */
    (void)sigaction(VMM_KICK, &kick, NULL);
    vm->cpus[0].since_ns = vmm_now_ns();
    vmm_watchdog_wake(vm);
}

/* First thing in a vCPU's thread. Ticks are for the control thread. */
void vmm_watchdog_thread(struct vmm_cpu *cpu) {
    own_run = cpu->run;
    __atomic_store_n(&cpu->thread, (uint32_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
    vmm_wake_all(&cpu->thread);
}

/* Under the lock, by a vCPU that has woken. */
void vmm_watchdog_wake(struct vmm_vm *vm) {
    uint64_t tick = vm->config.deadline_ns / TICKS_PER_DEADLINE;
    tick = tick < MIN_TICK_NS ? MIN_TICK_NS : tick > MAX_TICK_NS ? MAX_TICK_NS : tick;
    if (!vm->ticking)
        set_timer(tick);
    vm->ticking = true;
}

/* Before the enclave is ready its constructors count as a call of vCPU 0. */
bool vmm_busy(const struct vmm_cpu *cpu) {
    const struct cafe_monitor_vcpu *at = &cpu->vm->monitor->vcpus[cpu->number];
    if (__atomic_load_n(&cpu->vm->phase, __ATOMIC_ACQUIRE) != VMM_READY)
        return cpu->number == 0;
    return __atomic_load_n(&at->started, __ATOMIC_ACQUIRE) !=
           __atomic_load_n(&at->finished, __ATOMIC_ACQUIRE);
}

/* A call's time counts from the first tick that sees it, so it may last one tick longer than its deadline. */
static bool expired(struct vmm_cpu *cpu, uint64_t now) {
    const uint64_t started = __atomic_load_n(&cpu->vm->monitor->vcpus[cpu->number].started, __ATOMIC_ACQUIRE);
    if (!vmm_busy(cpu) || started != cpu->seen) {
        cpu->seen = started;
        cpu->since_ns = now;
        return false;
    }
    return now - cpu->since_ns >= cpu->vm->config.deadline_ns;
}

/* At each tick. The vCPU itself tells where it was. */
void vmm_watchdog_look(struct vmm_vm *vm) {
    const uint64_t now = vmm_now_ns();
    for (uint32_t i = 0; i < vm->config.vcpu_count; i++) {
        struct vmm_cpu *cpu = &vm->cpus[i];
        const uint32_t thread = __atomic_load_n(&cpu->thread, __ATOMIC_ACQUIRE);
        if (thread && expired(cpu, now)) {
            __atomic_store_n(&cpu->expired, 1, __ATOMIC_RELEASE);
            (void)syscall(SYS_tgkill, process, thread, VMM_KICK);
        }
    }
    vmm_lock(&vm->lock);
    bool busy = false; /* asleep in a call: its deadline counts */
    for (uint32_t i = 0; i < vm->config.vcpu_count; i++)
        busy |= vmm_busy(&vm->cpus[i]);
    if (!busy && vm->sleepers == vm->config.vcpu_count) {
        set_timer(0);
        vm->ticking = false;
    }
    vmm_unlock(&vm->lock);
}
