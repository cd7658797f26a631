/* wait.c - from a published request to its reply: spin for what a wake-up costs, then sleep. */
#include "state.h"

#include <x86intrin.h>

#define SLEEP_MILLISECONDS 100
#define RING_AFTER 6u  /* turns: a good part of a microsecond */
#define LOOK_EVERY 32u /* turns between two looks at clock and channel; more than RING_AFTER */

enum progress { WAITING, REPLIED, NONSENSE };

static void cafe_ring(struct cafe_state *state) {
    struct cafe_channel_header *header = (struct cafe_channel_header *)(void *)state->region;
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the request is visible before `sleeping` is read */
    if (__atomic_load_n(&header->sleeping, __ATOMIC_RELAXED) != 0) {
        (void)__atomic_add_fetch(&header->bell, 1, __ATOMIC_RELEASE);
        cafe_futex_wake(&header->bell, 1, true);
    }
}

static enum progress look(struct cafe_slot *slot, uint32_t number) {
    const uint32_t reply = __atomic_load_n(&slot->reply, __ATOMIC_ACQUIRE);
    if (reply == number) {
        return REPLIED;
    }
    return reply == number - 1 ? WAITING : NONSENSE;
}

/* An enclave that is awake answers within a few turns. Only when it has not, the fence that must lie between
 * publishing a request and reading `sleeping` is paid for. */
static enum progress spin(struct cafe_state *state, struct cafe_slot *slot, uint32_t number) {
    const uint64_t start = __rdtsc();
    enum progress seen = look(slot, number);
    for (uint32_t turn = 1; seen == WAITING; turn++) {
        if (turn == RING_AFTER) {
            cafe_ring(state);
        } else if (turn % LOOK_EVERY == 0 &&
                   (__rdtsc() - start >= state->spin_cycles || cafe_channel_ended(state) != CAFE_OK)) {
            return look(slot, number);
        }
        _mm_pause();
        seen = look(slot, number);
    }
    return seen;
}

static void sleep_until_reply(struct cafe_slot *slot, uint32_t number) {
    __atomic_store_n(&slot->waiting, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&slot->reply, __ATOMIC_SEQ_CST) == number - 1) {
        cafe_futex_wait(&slot->reply, number - 1, SLEEP_MILLISECONDS, true);
    }
    __atomic_store_n(&slot->waiting, 0, __ATOMIC_RELAXED);
}

enum cafe_status cafe_wait_reply(struct cafe_state *state, struct cafe_slot *slot, uint32_t number) {
    enum progress seen = spin(state, slot, number);
    while (seen == WAITING) {
        enum cafe_status ended = cafe_channel_ended(state);
        if (ended == CAFE_OK && cafe_agent_gone(state)) {
            ended = CAFE_E_AGENT;
            cafe_channel_break(state, ended);
        }
        if (ended == CAFE_OK) {
            sleep_until_reply(slot, number);
        }
        seen = look(slot, number); /* after the end was seen, too: the reply may have come just before */
        if (ended != CAFE_OK && seen == WAITING) {
            return ended;
        }
    }
    if (seen == NONSENSE) {
        cafe_channel_break(state, CAFE_E_MALFORMED);
        return CAFE_E_MALFORMED;
    }
    return CAFE_OK;
}
