/*
 * renew.c - a channel in place of none, or of one whose enclave has ended. The seats guard it: it changes
 * when none is in use. A thread in a callback is not waited for, since it may be waiting for one that wants a
 * call; its seat becomes STALE, and its call fails when it comes back.
 */
#include "seat.h"

#define NAP 200 /* microseconds */

static bool vacate(struct cafe_state *state, uint32_t seat) {
    uint32_t *word = &state->seats[seat].word;
    uint32_t now = __atomic_load_n(word, __ATOMIC_ACQUIRE), to = CAFE_SEAT_ABSENT;
    switch (now & CAFE_SEAT_STATE) {
    case CAFE_SEAT_ABSENT:
    case CAFE_SEAT_STALE:
        return true;
    case CAFE_SEAT_BUSY:
        return false;
    case CAFE_SEAT_ASLEEP: /* it finds that the channel has ended */
        cafe_futex_wake(
            (uint32_t *)(void *)(state->region + CAFE_CHANNEL_HEADER_BYTES + seat * state->slot_bytes), 1,
            true);
        return false;
    case CAFE_SEAT_OUT:
        state->mapping->kept = true;
        to = (now & ~(CAFE_SEAT_TURN | CAFE_SEAT_STATE)) | CAFE_SEAT_STALE;
        break;
    default:
        break;
    }
    return __atomic_compare_exchange_n(word, &now, to, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

static void close_seats(struct cafe_state *state) {
    cafe_turns_set(state, 0);
    for (uint32_t seat = 0; seat < CAFE_MAX_SLOTS; seat++) {
        while (!vacate(state, seat)) {
            uint32_t never = 0;
            cafe_futex_wait(&never, 0, NAP, false);
        }
    }
}

static void open_seats(struct cafe_state *state) {
    for (uint32_t seat = 0; seat < state->slot_count; seat++) {
        uint32_t absent = CAFE_SEAT_ABSENT;
        (void)__atomic_compare_exchange_n(&state->seats[seat].word, &absent, CAFE_SEAT_FREE, false,
                                          __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    }
    cafe_turns_set(state, state->slot_count);
}

/* A channel that lives, or why there is none. Threads that waited for one attempt share its outcome. */
enum cafe_status cafe_renew(struct cafe_state *state, uint32_t attempts_seen) {
    enum cafe_status status = CAFE_OK;
    int cancel = 0;
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel); /* a lock is held over system calls */
    cafe_self()->launching = true;
    (void)pthread_mutex_lock(&state->lock);
    const bool closed = state->turns.seats == 0;
    if (closed && state->attempts != attempts_seen) {
        status = state->failure;
    } else if (closed || !cafe_channel_alive(state)) {
        close_seats(state);
        status = cafe_launch(state);
        state->failure = status;
        (void)__atomic_add_fetch(&state->attempts, 1, __ATOMIC_RELEASE);
        if (status == CAFE_OK) {
            open_seats(state);
        }
    }
    if (status != CAFE_OK) {
        cafe_error_set(status, state->message);
    }
    (void)pthread_mutex_unlock(&state->lock);
    cafe_self()->launching = false;
    (void)pthread_setcancelstate(cancel, NULL);
    return status;
}
