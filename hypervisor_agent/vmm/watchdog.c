/* watchdog.c - ends a call that takes too long. Calls cross without an exit, so a timer looks at the monitor.
 */
#define _GNU_SOURCE
#include "vmm.h"

#include <signal.h>
#include <sys/time.h>
#include <time.h>

#define TICKS_PER_DEADLINE 8u
#define MIN_TICK_NS 2000000ull
#define MAX_TICK_NS 250000000ull
#define NS_PER_SECOND 1000000000ull

static struct kvm_run *interrupted;

/* Ends KVM_RUN, or the next one if the vCPU is just about to enter. */
static void on_tick(int number) {
    (void)number;
    __atomic_store_n(&interrupted->immediate_exit, 1, __ATOMIC_RELAXED);
}

static uint64_t now_ns(void) {
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

/* Before the system call filter is installed. */
void vmm_watchdog_install(struct kvm_run *run) {
    struct sigaction action = {.sa_handler = on_tick}; /* no SA_RESTART: a tick interrupts a futex as well */
    interrupted = run;
    (void)sigaction(SIGALRM, &action, NULL); /* cannot fail for this signal */
}

void vmm_watchdog_start(struct vmm_watchdog *dog, uint64_t deadline_ns) {
    uint64_t tick = deadline_ns / TICKS_PER_DEADLINE;
    tick = tick < MIN_TICK_NS ? MIN_TICK_NS : tick;
    *dog = (struct vmm_watchdog){
        .deadline_ns = deadline_ns, .tick_ns = tick > MAX_TICK_NS ? MAX_TICK_NS : tick, .since_ns = now_ns()};
}

void vmm_watchdog_arm(struct vmm_watchdog *dog) {
    if (!dog->armed)
        set_timer(dog->tick_ns);
    dog->armed = true;
}

void vmm_watchdog_disarm(struct vmm_watchdog *dog) {
    if (dog->armed)
        set_timer(0);
    dog->armed = false;
}

/* Before the enclave is ready its constructors count as a call. */
bool vmm_watchdog_busy(const struct vmm_watchdog *dog) {
    return !dog->monitor || dog->monitor->started != dog->monitor->finished;
}

/* A call's time counts from the first tick that sees it, so it may last one tick longer than its deadline. */
bool vmm_watchdog_expired(struct vmm_watchdog *dog) {
    uint64_t now = now_ns();
    uint64_t started = dog->monitor ? dog->monitor->started : 0;
    if (!vmm_watchdog_busy(dog) || started != dog->seen) {
        dog->seen = started;
        dog->since_ns = now;
        return false;
    }
    return now - dog->since_ns >= dog->deadline_ns;
}
