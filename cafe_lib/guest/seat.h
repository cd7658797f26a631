/* seat.h - the quick ways to a seat and from it: the thread still has the one it had last, and nobody waits.
 */
#ifndef CAFE_SEAT_H
#define CAFE_SEAT_H

#include "state.h"

#define CAFE_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define CAFE_COLD __attribute__((noinline, cold))

/* CAFE_OK while the channel can be used, by whoever holds a seat. */
static inline bool cafe_channel_alive(const struct cafe_state *state) {
    return __atomic_load_n(&state->broken, __ATOMIC_RELAXED) == CAFE_OK &&
           __atomic_load_n(&cafe_header(state)->state, __ATOMIC_RELAXED) != CAFE_CHANNEL_DEAD;
}

/* The only locked instruction of a call. */
static inline bool cafe_seat_again(struct cafe_state *state, const struct cafe_thread *me) {
    uint32_t idle = me->owner | CAFE_SEAT_TURN | CAFE_SEAT_IDLE;
    return __atomic_compare_exchange_n(&state->seats[me->seat].word, &idle,
                                       me->owner | CAFE_SEAT_TURN | CAFE_SEAT_BUSY, false, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}

/* After a call; false: cafe_turn_release has to see to it. No fence lies between looking for waiters and
 * giving the seat back: whoever waits looks for itself, too. */
static inline bool cafe_seat_keep(struct cafe_state *state, const struct cafe_thread *me, uint32_t seat) {
    uint32_t *word = &state->seats[seat].word;
    const uint32_t busy = me->owner | CAFE_SEAT_TURN | CAFE_SEAT_BUSY;
    if (!CAFE_LIKELY(__atomic_load_n(word, __ATOMIC_RELAXED) == busy &&
                     __atomic_load_n(&state->waiters, __ATOMIC_RELAXED) == 0)) {
        return false;
    }
    __atomic_store_n(word, busy ^ CAFE_SEAT_BUSY ^ CAFE_SEAT_IDLE, __ATOMIC_RELEASE);
    return true;
}

#endif
