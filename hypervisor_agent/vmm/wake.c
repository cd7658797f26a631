/* wake.c - sleeping while nothing is asked, and waking guest threads. The VMM owns both, so no Python runs.
 */
#define _GNU_SOURCE
#include "vmm.h"

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#define SPINS 64u
#define LEFT_NS 2000000u /* how long a request is left alone that nobody takes up */

/* linux/futex.h has this from 5.16 on; a newer kernel than its headers is common. */
struct vmm_futex {
    uint64_t value, address;
    uint32_t flags, reserved;
};
#define FUTEX_OF_32_BITS 2u

static uint32_t load(const uint32_t *word) {
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

void vmm_wake_all(uint32_t *word) {
    (void)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void vmm_wait(uint32_t *word, uint32_t value) {
    (void)syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
}

/* Held for a few stores only. */
void vmm_lock(uint32_t *word) {
    for (uint32_t turn = 1; __atomic_exchange_n(word, 1, __ATOMIC_ACQUIRE) != 0; turn++)
        if (turn % SPINS == 0)
            (void)sched_yield();
        else
            __builtin_ia32_pause();
}

void vmm_unlock(uint32_t *word) {
    __atomic_store_n(word, 0, __ATOMIC_RELEASE);
}

/* Under the lock: what guest threads must know before they wait. */
void vmm_tell_sleeping(const struct vmm_vm *vm) {
    const uint32_t all = vm->sleepers == vm->config.vcpu_count ? CAFE_ALL_SLEEP : CAFE_SOME_SLEEP;
    for (uint32_t i = 0; i < vm->config.region_count; i++)
        if (vm->regions[i].taken)
            __atomic_store_n(&vmm_header(vm, i)->sleeping, vm->sleepers ? all : CAFE_AWAKE, __ATOMIC_SEQ_CST);
}

/* Does another vCPU answer this slot already? What it says of itself is its own enclave's business. */
static bool served(const struct vmm_cpu *cpu, uint32_t region, uint32_t slot) {
    const struct vmm_vm *vm = cpu->vm;
    for (uint32_t i = 0; i < vm->config.vcpu_count; i++) {
        const struct cafe_monitor_vcpu *at = &vm->monitor->vcpus[i];
        if (i != cpu->number && vmm_busy(&vm->cpus[i]) &&
            __atomic_load_n(&at->region, __ATOMIC_RELAXED) == region &&
            __atomic_load_n(&at->slot, __ATOMIC_RELAXED) == slot)
            return true;
    }
    return false;
}

static bool request_pending(const struct vmm_cpu *cpu) {
    const struct vmm_vm *vm = cpu->vm;
    for (uint32_t region = 0; region < vm->config.region_count; region++) {
        if (!__atomic_load_n(&vm->regions[region].taken, __ATOMIC_RELAXED))
            continue;
        for (uint32_t i = 0; i < vm->config.slot_count; i++) {
            const struct cafe_slot *slot = vmm_slot(vm, region, i);
            const uint32_t reply = load(&slot->reply);
            if (load(&slot->request) != reply && !served(cpu, region, i))
                return true;
        }
    }
    return false;
}

static struct vmm_futex watch(const uint32_t *word, uint32_t value) {
    return (struct vmm_futex){.value = value, .address = (uintptr_t)word, .flags = FUTEX_OF_32_BITS};
}

/* How often in a row this vCPU wanted to sleep although something is asked, and had begun no call for it. */
static uint32_t passed_over(struct vmm_cpu *cpu) {
    const uint64_t begun = __atomic_load_n(&cpu->vm->monitor->vcpus[cpu->number].started, __ATOMIC_RELAXED);
    if (begun != cpu->begun)
        cpu->passed = 0;
    cpu->begun = begun;
    return cpu->passed < 2 ? cpu->passed++ : cpu->passed;
}

/* What is asked may be another vCPU's, which waits for it in a callback and sleeps: it is woken, once. Or the
 * guest has forged both words; then nobody takes it up, and it must not keep us awake for ever. */
static void sleep_on(struct vmm_cpu *cpu, const struct vmm_futex *futexes, uint32_t count) {
    struct timespec end, *limit = NULL;
    if (request_pending(cpu)) {
        const uint32_t passed = passed_over(cpu);
        if (passed == 0)
            return;
        for (uint32_t i = 1; passed == 1 && i < count; i++)
            vmm_wake_all((uint32_t *)(uintptr_t)futexes[i].address);
        const uint64_t end_ns = vmm_now_ns() + LEFT_NS;
        end = (struct timespec){.tv_sec = (time_t)(end_ns / 1000000000u),
                                .tv_nsec = (long)(end_ns % 1000000000u)};
        limit = &end;
    } else {
        cpu->passed = 0;
    }
    (void)syscall(SYS_futex_waitv, futexes, count, 0, limit, CLOCK_MONOTONIC);
}

/* Sleeps until a bell rings or a region changes. The guest publishes a request, then looks at `sleeping`; we
 * set `sleeping`, then look for requests; the fences on both sides make one of us see the other. */
void vmm_sleep(struct vmm_cpu *cpu) {
    struct vmm_vm *vm = cpu->vm;
    struct vmm_futex futexes[1 + CAFE_MAX_REGIONS];
    uint32_t count = 0;
    futexes[count++] = watch(&vm->changed, cpu->changes); /* one since the last sleep has not been seen yet */
    vmm_lock(&vm->lock);
    for (uint32_t i = 0; i < vm->config.region_count; i++)
        if (vm->regions[i].taken)
            futexes[count++] = watch(&vmm_header(vm, i)->bell, load(&vmm_header(vm, i)->bell));
    vm->sleepers++;
    vmm_tell_sleeping(vm);
    vmm_unlock(&vm->lock);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    sleep_on(cpu, futexes, count);
    cpu->changes = load(&vm->changed);
    vmm_lock(&vm->lock);
    vm->sleepers--;
    vmm_tell_sleeping(vm);
    vmm_watchdog_wake(vm);
    vmm_unlock(&vm->lock);
}

/* `place`: region << 32 | slot, as the enclave says. */
void vmm_wake_slot(const struct vmm_vm *vm, uint64_t place) {
    const uint64_t region = place >> 32, slot = place & 0xffffffff;
    if (region < vm->config.region_count && slot < vm->config.slot_count)
        vmm_wake_all(&vmm_slot(vm, (uint32_t)region, (uint32_t)slot)->reply);
}
