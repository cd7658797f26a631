/* vmm_sleep.c - vCPUs that sleep and wake, the watchdog's clock, and a monitor page full of lies. */
#define _GNU_SOURCE
#include "kernel.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define MOMENT_US 30000

struct sleeper {
    struct vmm_cpu *cpu;
    uint32_t woken; /* atomic */
};

static void *sleeps(void *argument) {
    struct sleeper *sleeper = argument;
    vmm_sleep(sleeper->cpu);
    __atomic_store_n(&sleeper->woken, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static bool sleeping(struct vmm_vm *vm, uint32_t count) {
    vmm_lock(&vm->lock);
    const bool found = vm->sleepers == count;
    vmm_unlock(&vm->lock);
    return found;
}

static void ring(struct vmm_vm *vm, uint32_t region) {
    (void)__atomic_add_fetch(&vmm_header(vm, region)->bell, 1, __ATOMIC_SEQ_CST);
    vmm_wake_all(&vmm_header(vm, region)->bell);
}

/* Ready, with the first and the last region taken. */
static struct vmm_vm *with_regions(uint32_t vcpus) {
    struct vmm_vm *vm = kernel_new(vcpus);
    vmm_watchdog_install(vm);
    for (uint32_t i = 0; i < REGIONS; i++)
        vm->regions[i] = (struct vmm_region){.taken = i != 1, .changes = i != 1};
    vm->phase = VMM_READY;
    return vm;
}

static uint32_t told(struct vmm_vm *vm, uint32_t region) {
    return __atomic_load_n(&vmm_header(vm, region)->sleeping, __ATOMIC_SEQ_CST);
}

static void bells_wake(void) {
    struct vmm_vm *vm = with_regions(2);
    struct sleeper one = {.cpu = &vm->cpus[0]}, two = {.cpu = &vm->cpus[1]};
    pthread_t first, second;
    NEED(told(vm, 0) == CAFE_AWAKE);
    NEED(pthread_create(&first, NULL, sleeps, &one) == 0);
    while (!sleeping(vm, 1))
        (void)usleep(1000);
    NEED(told(vm, 0) == CAFE_SOME_SLEEP && told(vm, 2) == CAFE_SOME_SLEEP && told(vm, 1) == CAFE_AWAKE);
    NEED(pthread_create(&second, NULL, sleeps, &two) == 0);
    while (!sleeping(vm, 2))
        (void)usleep(1000);
    NEED(told(vm, 0) == CAFE_ALL_SLEEP);
    (void)usleep(MOMENT_US);
    NEED(!__atomic_load_n(&one.woken, __ATOMIC_SEQ_CST) && !__atomic_load_n(&two.woken, __ATOMIC_SEQ_CST));
    ring(vm, 2);
    NEED(pthread_join(first, NULL) == 0 && pthread_join(second, NULL) == 0);
    NEED(told(vm, 0) == CAFE_AWAKE && vm->ticking);
    kernel_delete(vm);
}

static double seconds_of(struct vmm_cpu *cpu) {
    const uint64_t start = vmm_now_ns();
    vmm_sleep(cpu);
    return (double)(vmm_now_ns() - start) / 1e9;
}

/* A request keeps a vCPU awake once. Left unanswered it is another's, or a lie: from then on it only makes
 * the sleep short, and the others are woken once. */
static void requests_are_not_slept_over(void) {
    struct vmm_vm *vm = with_regions(2);
    struct vmm_cpu *cpu = &vm->cpus[0];
    struct sleeper other = {.cpu = &vm->cpus[1]};
    pthread_t thread;
    NEED(pthread_create(&thread, NULL, sleeps, &other) == 0);
    while (!sleeping(vm, 1))
        (void)usleep(1000);
    vmm_slot(vm, 2, 1)->request = 5;
    NEED(seconds_of(cpu) < 5 && cpu->passed == 1);
    do {
        cpu->passed = 1; /* again, should the other one not have got to sleep yet */
        vmm_sleep(cpu);
    } while (!__atomic_load_n(&other.woken, __ATOMIC_SEQ_CST));
    NEED(pthread_join(thread, NULL) == 0 && cpu->passed == 2);
    for (uint32_t i = 0; i < 3; i++)
        NEED(seconds_of(cpu) > 0.001); /* each time, the CPU had this to itself */
    vm->monitor->vcpus[0].started++;   /* it did serve something */
    vm->monitor->vcpus[0].finished++;
    vmm_sleep(cpu);
    NEED(cpu->passed == 1);
    vmm_slot(vm, 2, 1)->reply = 5;
    vm->changed++; /* a region has changed: it looks again before it sleeps */
    vmm_sleep(cpu);
    NEED(cpu->passed == 0 && cpu->changes == vm->changed);
    kernel_delete(vm);
}

/* Another vCPU says that it serves the slot; whether that is so is the enclave's business. */
static void requests_that_are_served(void) {
    struct vmm_vm *vm = with_regions(3);
    struct cafe_monitor_vcpu *at = vm->monitor->vcpus;
    struct sleeper sleeper = {.cpu = &vm->cpus[1]};
    pthread_t thread;
    vmm_slot(vm, 2, 1)->request = 5;
    const struct cafe_monitor_vcpu lies[] = {{.started = 1, .finished = 1, .region = 2, .slot = 1},
                                             {.started = 2, .finished = 1, .region = 0, .slot = 1},
                                             {.started = 2, .finished = 1, .region = 2, .slot = 0},
                                             {.started = 0, .finished = ~0ull, .region = ~0u, .slot = ~0u}};
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        at[0] = lies[i];
        at[1] =
            (struct cafe_monitor_vcpu){.started = i + 9, .finished = 1, .region = 2, .slot = 1}; /* itself */
        vmm_sleep(&vm->cpus[1]);
        NEED(vm->cpus[1].passed == 1);
    }
    at[2] = (struct cafe_monitor_vcpu){.started = 2, .finished = 1, .region = 2, .slot = 1};
    NEED(pthread_create(&thread, NULL, sleeps, &sleeper) == 0);
    while (!sleeping(vm, 1))
        (void)usleep(1000);
    (void)usleep(MOMENT_US);
    NEED(!__atomic_load_n(&sleeper.woken, __ATOMIC_SEQ_CST));
    ring(vm, 0);
    NEED(pthread_join(thread, NULL) == 0);
    kernel_delete(vm);
}

static uint32_t wants, held;

static void *takes_the_lock(void *word) {
    __atomic_store_n(&wants, 1, __ATOMIC_SEQ_CST);
    vmm_lock(word);
    __atomic_store_n(&held, 1, __ATOMIC_SEQ_CST);
    vmm_unlock(word);
    return NULL;
}

static void lock_excludes(void) {
    uint32_t word = 0;
    pthread_t thread;
    vmm_lock(&word);
    NEED(pthread_create(&thread, NULL, takes_the_lock, &word) == 0);
    while (!__atomic_load_n(&wants, __ATOMIC_SEQ_CST))
        (void)usleep(1000);
    (void)usleep(5 * MOMENT_US);
    NEED(!__atomic_load_n(&held, __ATOMIC_SEQ_CST));
    vmm_unlock(&word);
    NEED(pthread_join(thread, NULL) == 0 && held);
}

/* ---- the watchdog */

static uint64_t period_us(void) {
    struct itimerval timer;
    NEED(getitimer(ITIMER_REAL, &timer) == 0);
    return (uint64_t)timer.it_interval.tv_sec * 1000000u + (uint64_t)timer.it_interval.tv_usec;
}

static void ticks_follow_the_deadline(void) {
    const uint64_t deadlines_ms[] = {1, 40, 1000, 24 * 3600000ull}, ticks_us[] = {2000, 5000, 125000, 250000};
    for (size_t i = 0; i < 4; i++) {
        struct vmm_vm *vm = with_regions(1);
        vm->config.deadline_ns = deadlines_ms[i] * 1000000;
        vm->ticking = false;
        vmm_watchdog_install(vm);
        const uint64_t found = period_us();
        NEED(vm->ticking && found >= ticks_us[i] && found <= ticks_us[i] + 8000); /* a kernel's jiffies */
        vmm_watchdog_wake(vm);                                                    /* once is enough */
        vm->sleepers = 1;
        vmm_watchdog_look(vm); /* all asleep, nothing runs */
        NEED(!vm->ticking && period_us() == 0);
        vm->monitor->vcpus[0].started++;
        vmm_watchdog_wake(vm);
        vmm_watchdog_look(vm); /* asleep in a call: the clock runs on */
        NEED(vm->ticking && period_us() != 0);
        vm->sleepers = 0;
        vm->monitor->vcpus[0].finished++;
        vmm_watchdog_look(vm); /* awake */
        NEED(vm->ticking);
        kernel_delete(vm);
    }
}

/* KVM_RUN of an enclave that does nothing until it is kicked; the kick may come before it enters. */
static int runs_for_ever(struct vmm_cpu *cpu) {
    while (!__atomic_load_n(&cpu->run->immediate_exit, __ATOMIC_SEQ_CST))
        (void)usleep(1000);
    errno = EINTR;
    return -1;
}

static ssize_t ticks_only(struct msghdr *message) {
    (void)message;
    (void)usleep(1000);
    errno = __atomic_load_n(&kernel.ends, __ATOMIC_SEQ_CST) ? ECONNRESET : EINTR;
    return -1;
}

/* Before READY the constructors count as a call, and what the monitor says of the others is nothing. */
static void constructors_have_a_deadline(void) {
    struct vmm_vm *vm = kernel_new(2);
    kernel.enclave = runs_for_ever;
    kernel.receive = ticks_only;
    kernel.rip = 0x777;
    vm->monitor->vcpus[1].started = 9;
    vmm_watchdog_install(vm);
    NEED(vmm_start_threads(vm) == VMM_STEP_NONE);
    NEED(vmm_busy(&vm->cpus[0]) && !vmm_busy(&vm->cpus[1]));
    vmm_enter_phase(vm, VMM_CONFINED);
    vmm_control(vm);
    NEED(kernel_need(VMM_EVENT_DEADLINE).rip == 0x777);
    kernel.receive = NULL; /* a thread waits for READY in this VM: it is not freed */
}

/* A vCPU without a thread yet is not kicked. A call that ends, or another one, starts the clock anew. */
static void clock_counts_one_call(void) {
    struct vmm_vm *vm = with_regions(1);
    struct vmm_cpu *cpu = &vm->cpus[0];
    struct cafe_monitor_vcpu *at = vm->monitor->vcpus;
    vm->config.deadline_ns = 0;
    at->started = 5;
    cpu->seen = 5;
    vmm_watchdog_look(vm);
    NEED(!cpu->expired);
    cpu->thread = 1;
    at->finished = 5;
    vmm_watchdog_look(vm);
    NEED(!cpu->expired && cpu->seen == 5);
    at->started = 6;
    vmm_watchdog_look(vm);
    NEED(!cpu->expired && cpu->seen == 6);
    vm->config.deadline_ns = 1ull << 60;
    vmm_watchdog_look(vm);
    NEED(!cpu->expired);
    kernel_delete(vm);
}

int main(void) {
    sigset_t ticks; /* as in a vCPU's thread */
    NEED(sigemptyset(&ticks) == 0 && sigaddset(&ticks, SIGALRM) == 0);
    NEED(pthread_sigmask(SIG_BLOCK, &ticks, NULL) == 0);
    bells_wake();
    requests_are_not_slept_over();
    requests_that_are_served();
    lock_excludes();
    ticks_follow_the_deadline();
    clock_counts_one_call();
    constructors_have_a_deadline();
    (void)puts("all good");
    return 0;
}
