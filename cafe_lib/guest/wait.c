/*
 * wait.c - a reply that did not come at once: spin for as long as that has paid lately, then sleep.
 *
 * Spinning saves what two wake-ups cost, but only if the enclave runs meanwhile: not when it shares the only
 * CPU, and not in a call that takes milliseconds. So each thread learns. Its budget grows to twice what a
 * reply took that came within it, and falls to a quarter each time none did; now and then, ever more seldom,
 * the longest budget is tried again.
 */
#include "seat.h"

#include <x86intrin.h>

#define LEAST_CYCLES 1500u
#define MOST_CYCLES 130000u /* some 50 us, what waking another core takes */
#define LEAST_PROBE 16u
#define MOST_PROBE 4096u
#define LOOK_EVERY 16u /* turns between two looks at clock and channel */
#define FIRST_NAP 2000 /* microseconds: the wake-up at an enclave's end may come just before the sleep */
#define MOST_NAP 100000

enum progress { WAITING, REPLIED, NONSENSE };

static enum progress look(struct cafe_slot *slot, uint32_t number) {
    const uint32_t reply = __atomic_load_n(&slot->reply, __ATOMIC_ACQUIRE);
    if (reply == number) {
        return REPLIED;
    }
    return reply == number - 1 ? WAITING : NONSENSE;
}

/* An enclave that is awake has answered by now, as a rule; only here the fence is paid for that must lie
 * between publishing a request and reading `sleeping`. */
static bool ring(struct cafe_state *state, enum cafe_sleeping least) {
    struct cafe_channel_header *header = cafe_header(state);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(&header->sleeping, __ATOMIC_RELAXED) < (uint32_t)least) {
        return false;
    }
    (void)__atomic_add_fetch(&header->bell, 1, __ATOMIC_RELEASE);
    cafe_futex_wake(&header->bell, 1, true);
    return true;
}

static uint64_t budget_of(struct cafe_thread *me) {
    if (me->probe == 0) { /* its first call that has to wait */
        me->probe = LEAST_PROBE;
        me->budget = MOST_CYCLES;
    }
    return me->blocked >= me->probe ? MOST_CYCLES : me->budget;
}

static void reward(struct cafe_thread *me, uint64_t spent) {
    const uint64_t wanted = spent * 2 < MOST_CYCLES ? spent * 2 : MOST_CYCLES;
    me->budget = wanted > me->budget ? (uint32_t)wanted : me->budget;
    me->blocked = 0;
    me->probe = LEAST_PROBE;
}

static void punish(struct cafe_thread *me) {
    me->budget = me->budget / 4 > LEAST_CYCLES ? me->budget / 4 : LEAST_CYCLES;
    if (me->blocked++ >= me->probe) {
        me->blocked = 0;
        me->probe = me->probe < MOST_PROBE ? me->probe * 2 : MOST_PROBE;
    }
}

static enum progress spin(const struct cafe_state *state, struct cafe_slot *slot, uint32_t number) {
    const uint64_t start = __rdtsc(), budget = budget_of(cafe_self());
    enum progress seen = look(slot, number);
    for (uint32_t turn = 1; seen == WAITING; turn++) {
        if (turn % LOOK_EVERY == 0 && (__rdtsc() - start >= budget || !cafe_channel_alive(state))) {
            punish(cafe_self());
            return look(slot, number);
        }
        _mm_pause();
        seen = look(slot, number);
    }
    reward(cafe_self(), __rdtsc() - start);
    return seen;
}

static void sleep_until_reply(struct cafe_slot *slot, uint32_t number, long nap) {
    __atomic_store_n(&slot->waiting, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&slot->reply, __ATOMIC_SEQ_CST) == number - 1) {
        cafe_futex_wait(&slot->reply, number - 1, nap, true);
    }
    __atomic_store_n(&slot->waiting, 0, __ATOMIC_RELAXED);
}

/* What it ended with, if it has: CAFE_OK if the call may go on sleeping. */
static enum cafe_status ended(struct cafe_state *state, bool look_for_agent) {
    const enum cafe_status status = cafe_channel_reason(state);
    if (status == CAFE_OK && look_for_agent && cafe_agent_gone(state)) {
        cafe_channel_break(state, CAFE_E_AGENT);
        return CAFE_E_AGENT;
    }
    return status;
}

static enum progress doze(struct cafe_state *state, struct cafe_slot *slot, uint32_t number, bool rung,
                          enum cafe_status *reason) {
    enum progress seen = WAITING;
    for (long nap = FIRST_NAP; seen == WAITING && *reason == CAFE_OK;) {
        *reason = ended(state, nap > FIRST_NAP);
        if (*reason == CAFE_OK) {
            rung = rung || ring(state, CAFE_SOME_SLEEP);
            sleep_until_reply(slot, number, nap);
            nap = nap * 4 < MOST_NAP ? nap * 4 : MOST_NAP;
            rung = false;
        }
        seen = look(slot, number); /* after the end was seen, too: the reply may have come just before */
    }
    return seen;
}

CAFE_COLD enum cafe_status cafe_wait_reply(struct cafe_call *call, struct cafe_slot *slot, uint32_t number) {
    struct cafe_state *state = call->state;
    enum cafe_status reason = CAFE_OK;
    const bool rung = ring(state, CAFE_ALL_SLEEP);
    enum progress seen = spin(state, slot, number);
    if (seen == WAITING) {
        cafe_seat_pause(state, call->seat, CAFE_SEAT_ASLEEP);
        cafe_turn_offer(state);
        seen = doze(state, slot, number, rung, &reason);
        (void)cafe_seat_resume(state, call->seat);
    }
    if (seen == NONSENSE) {
        cafe_channel_break(state, CAFE_E_MALFORMED);
        return CAFE_E_MALFORMED;
    }
    return seen == REPLIED ? CAFE_OK : reason;
}
