/*
 * seat.c - which thread uses which slot. A thread comes back to the slot it had: one atomic instruction when
 * nobody has taken it meanwhile. The seats also guard the channel: renewing it takes every one of them.
 */
#include "state.h"

#include <string.h>

#define WAIT_MILLISECONDS 100

static __thread uint32_t favourite;

static bool take_one(struct cafe_state *state, uint32_t seat, enum cafe_seat_state as) {
    uint32_t expected = CAFE_SEAT_FREE;
    return __atomic_compare_exchange_n(&state->seats[seat].taken, &expected, (uint32_t)as, false,
                                       __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

void cafe_seat_release(struct cafe_state *state, uint32_t seat) {
    __atomic_store_n(&state->seats[seat].taken, CAFE_SEAT_FREE, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&state->waiters, __ATOMIC_SEQ_CST) != 0) {
        (void)__atomic_add_fetch(&state->releases, 1, __ATOMIC_SEQ_CST);
        cafe_futex_wake(&state->releases, 1, false);
    }
}

/* Any free seat; `*absent` tells whether there is no channel at all. */
static bool take_any(struct cafe_state *state, uint32_t *seat, bool *absent) {
    *absent = true;
    for (uint32_t i = 0; i < CAFE_MAX_SLOTS; i++) {
        if (take_one(state, i, CAFE_SEAT_TAKEN)) {
            *seat = i;
            return true;
        }
        *absent &= __atomic_load_n(&state->seats[i].taken, __ATOMIC_ACQUIRE) == CAFE_SEAT_ABSENT;
    }
    return false;
}

/* Until one of the seats from `first` to before `end` may be free. */
static void wait_for_release(struct cafe_state *state, uint32_t first, uint32_t end) {
    (void)__atomic_add_fetch(&state->waiters, 1, __ATOMIC_SEQ_CST);
    const uint32_t seen = __atomic_load_n(&state->releases, __ATOMIC_SEQ_CST);
    bool any = false;
    for (uint32_t i = first; i < end; i++) {
        any |= __atomic_load_n(&state->seats[i].taken, __ATOMIC_SEQ_CST) == CAFE_SEAT_FREE;
    }
    if (!any) {
        cafe_futex_wait(&state->releases, seen, WAIT_MILLISECONDS, false);
    }
    (void)__atomic_sub_fetch(&state->waiters, 1, __ATOMIC_SEQ_CST);
}

/* Under the lock: wait until every call in the channel has ended, then unmap it. */
static void retire(struct cafe_state *state) {
    for (uint32_t seat = 0; seat < state->slot_count; seat++) {
        while (!take_one(state, seat, CAFE_SEAT_ABSENT)) {
            wait_for_release(state, seat, seat + 1);
        }
    }
    cafe_channel_unmap(state);
}

static void admit(struct cafe_state *state) {
    for (uint32_t seat = 0; seat < state->slot_count; seat++) {
        state->seats[seat].sequence = 0;
        cafe_seat_release(state, seat);
    }
}

/* A channel that lives, or why there is none. Threads that waited for one attempt share its outcome. */
static enum cafe_status renew(struct cafe_state *state, uint32_t attempts_seen) {
    enum cafe_status status = CAFE_OK;
    int cancel = 0;
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel); /* a lock is held over system calls */
    (void)pthread_mutex_lock(&state->lock);
    if (state->region == NULL || cafe_channel_ended(state) != CAFE_OK) {
        if (state->region == NULL && state->attempts != attempts_seen) {
            status = state->failure;
        } else {
            retire(state);
            status = cafe_launch(state);
            state->failure = status;
            (void)__atomic_add_fetch(&state->attempts, 1, __ATOMIC_RELEASE);
            if (status == CAFE_OK) {
                admit(state);
            }
        }
        cafe_error_set(status, state->message);
    }
    (void)pthread_mutex_unlock(&state->lock);
    (void)pthread_setcancelstate(cancel, NULL);
    return status;
}

enum cafe_status cafe_seat_take(struct cafe_state *state, uint32_t *seat) {
    const uint32_t wanted = favourite;
    uint32_t attempts = __atomic_load_n(&state->attempts, __ATOMIC_ACQUIRE);
    if (take_one(state, wanted, CAFE_SEAT_TAKEN)) {
        *seat = wanted;
        if (cafe_channel_ended(state) == CAFE_OK) {
            return CAFE_OK;
        }
        cafe_seat_release(state, wanted);
    }
    for (;;) {
        bool absent = false;
        bool have = take_any(state, seat, &absent);
        if (have && cafe_channel_ended(state) == CAFE_OK) {
            favourite = *seat;
            return CAFE_OK;
        }
        if (have) {
            cafe_seat_release(state, *seat);
        }
        if (have || absent) {
            const enum cafe_status status = renew(state, attempts);
            if (status != CAFE_OK) {
                return status;
            }
            attempts = __atomic_load_n(&state->attempts, __ATOMIC_ACQUIRE);
        } else {
            wait_for_release(state, 0, CAFE_MAX_SLOTS);
        }
    }
}
