/* rt_racing.c - three vCPUs at once: calls of one process are each served once, whatever happens in the
 * region of another, which comes and goes in the middle of its calls. */
#define _GNU_SOURCE
#include "play.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#define VCPUS 3u
#define CALLS 20000u
#define COMINGS 400u
#define PATIENCE_NS 20000000000ull

static uint32_t ran[PLAY_REGIONS][PLAY_SLOTS], stop; /* atomic */

static uint64_t now_ns(void) {
    struct timespec now;
    NEED(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

enum cafe_status play_entry_0(struct rt_call *call) {
    (void)__atomic_add_fetch(&ran[call->own->region][call->own->index], 1, __ATOMIC_SEQ_CST);
    call->offset = 200;
    return CAFE_OK;
}

/* Takes a moment, so that its process may be gone when it answers. */
enum cafe_status play_entry_1(struct rt_call *call) {
    for (volatile uint32_t i = 0; i < 2000; i++)
        continue;
    return play_entry_0(call);
}

enum cafe_status play_entry_2(struct rt_call *call) {
    return play_entry_0(call);
}

enum cafe_status play_entry_3(struct rt_call *call) {
    return play_entry_0(call);
}

static void vmm(enum cafe_exit reason, uint64_t argument) {
    NEED(reason != CAFE_EXIT_ABORT && argument >> 32 < PLAY_REGIONS);
    if (__atomic_load_n(&stop, __ATOMIC_SEQ_CST))
        play_leave();
    (void)sched_yield();
}

static void *vcpu(void *number) {
    play_be((uint32_t)(uintptr_t)number);
    play_serve(rt_serve);
    return NULL;
}

/* False if there is no answer for too long. */
static bool until_answered(const struct cafe_slot *slot, uint32_t patience_turns) {
    for (uint32_t turn = 0; turn < patience_turns; turn++) {
        if (play_answered(slot))
            return true;
        (void)sched_yield();
    }
    return false;
}

static void *caller(void *index) {
    struct cafe_slot *slot = play_slot(0, (uint32_t)(uintptr_t)index);
    const uint64_t end = now_ns() + PATIENCE_NS;
    for (uint32_t i = 0; i < CALLS; i++) {
        play_ask(slot, 0);
        while (!until_answered(slot, 1000))
            NEED(now_ns() < end);
        NEED(__atomic_load_n(&ran[0][(uintptr_t)index], __ATOMIC_SEQ_CST) == i + 1);
    }
    return NULL;
}

/* What was answered has run, and nothing has run that was not asked. */
static void *passer_by(void *unused) {
    const uint64_t end = now_ns() + PATIENCE_NS;
    for (uint32_t coming = 0; coming < COMINGS; coming++) {
        while (__atomic_load_n(&play_monitor.settled[1], __ATOMIC_SEQ_CST) != 2 * coming) {
            NEED(now_ns() < end); /* the region is free in the end */
            (void)sched_yield();
        }
        const uint32_t before = __atomic_load_n(&ran[1][0], __ATOMIC_SEQ_CST);
        uint32_t asked = 0, answered = 0;
        play_attach(1);
        for (uint32_t i = 0; i <= coming % 5; i++, asked++) {
            play_ask(play_slot(1, 0), 1);
            if (!until_answered(play_slot(1, 0), coming % 3 ? 100 : 1))
                break;
            answered++;
        }
        asked += answered == asked ? 0 : 1;
        play_detach(1);
        const uint32_t found = __atomic_load_n(&ran[1][0], __ATOMIC_SEQ_CST) - before;
        NEED(found >= answered && found <= asked + 1);
    }
    return unused;
}

int main(void) {
    pthread_t vcpus[VCPUS], callers[PLAY_SLOTS], passing;
    play_start(VCPUS);
    play_vmm = vmm;
    for (uint32_t i = 0; i < VCPUS; i++)
        NEED(pthread_create(&vcpus[i], NULL, vcpu, (void *)(uintptr_t)i) == 0);
    for (uint32_t i = 0; i < PLAY_SLOTS; i++)
        NEED(pthread_create(&callers[i], NULL, caller, (void *)(uintptr_t)i) == 0);
    NEED(pthread_create(&passing, NULL, passer_by, NULL) == 0 && pthread_join(passing, NULL) == 0);
    for (uint32_t i = 0; i < PLAY_SLOTS; i++)
        NEED(pthread_join(callers[i], NULL) == 0 && ran[0][i] == CALLS);
    __atomic_store_n(&stop, 1, __ATOMIC_SEQ_CST);
    for (uint32_t i = 0; i < VCPUS; i++)
        NEED(pthread_join(vcpus[i], NULL) == 0);
    (void)puts("all good");
    return 0;
}
