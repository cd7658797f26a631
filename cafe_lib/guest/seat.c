/* seat.c - which thread uses which slot, where the quick way of seat.h does not do. */
#include "seat.h"

static void number_thread(struct cafe_thread *me) {
    static uint32_t last;
    while (me->owner == 0) { /* after 2^28 threads, numbers come again: two may then take over each other's */
        me->owner = __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED) << CAFE_SEAT_OWNER;
    }
}

static enum cafe_status refuse(enum cafe_status status) {
    cafe_error_set(status, "a signal handler interrupted a call, and its own cannot be made now");
    return status;
}

CAFE_COLD enum cafe_status cafe_seat_take(struct cafe_state *state, bool hurry, uint32_t *seat) {
    uint32_t attempts = __atomic_load_n(&state->attempts, __ATOMIC_ACQUIRE);
    number_thread(cafe_self());
    while (!cafe_self()->launching) {
        const enum cafe_turn turn = cafe_turn_take(state, hurry, seat);
        if (turn == CAFE_TURN_NONE) {
            return refuse(CAFE_E_LIMIT);
        }
        if (turn == CAFE_TURN_TAKEN) {
            if (cafe_channel_alive(state)) {
                return CAFE_OK;
            }
            cafe_turn_release(state, *seat);
        }
        if (hurry) {
            return refuse(CAFE_E_EXITED); /* renewing would wait for the interrupted call */
        }
        const enum cafe_status status = cafe_renew(state, attempts);
        if (status != CAFE_OK) {
            return status;
        }
        attempts = __atomic_load_n(&state->attempts, __ATOMIC_ACQUIRE);
    }
    return refuse(CAFE_E_LIMIT);
}

void cafe_seat_pause(struct cafe_state *state, uint32_t seat, enum cafe_seat_state as) {
    uint32_t *word = &state->seats[seat].word;
    const uint32_t now = __atomic_load_n(word, __ATOMIC_RELAXED);
    __atomic_store_n(word, (now & ~CAFE_SEAT_STATE) | (uint32_t)as, __ATOMIC_RELEASE);
}

bool cafe_seat_resume(struct cafe_state *state, uint32_t seat) {
    uint32_t *word = &state->seats[seat].word;
    uint32_t now = __atomic_load_n(word, __ATOMIC_RELAXED);
    for (;;) {
        const uint32_t as = now & CAFE_SEAT_STATE;
        if (now >> CAFE_SEAT_OWNER != cafe_self()->owner >> CAFE_SEAT_OWNER ||
            (as != CAFE_SEAT_ASLEEP && as != CAFE_SEAT_OUT)) {
            return false;
        }
        if (__atomic_compare_exchange_n(word, &now, (now & ~CAFE_SEAT_STATE) | CAFE_SEAT_BUSY, false,
                                        __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
            return true;
        }
    }
}
