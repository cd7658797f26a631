/*
 * turn.c - how many threads may spin at once, and in which order the others follow.
 *
 * More spinning threads than CPUs beside the enclave's keep it from running. So only `width` seats hold a
 * turn; who has none sleeps in a queue. A thread keeps seat and turn over many calls and hands both on once
 * it has had them for a while and somebody waits. A turn whose thread sleeps, is in a callback or between two
 * calls may be taken from it; the first of the queue looks for such ones now and then, so that nobody depends
 * on a thread that stops calling. Turns are only ever gained under the lock.
 */
#define _GNU_SOURCE
#include "seat.h"

#include <signal.h>
#include <x86intrin.h>

#define NO_SEAT UINT32_MAX
#define QUANTUM_CYCLES 1500000u /* half a millisecond: a hundred times what handing over costs */
#define FIRST_NAP 100           /* microseconds */
#define LONGEST_NAP 1000
#define OTHERS_NAP 50000 /* of those who are not first: somebody wakes them */

/* A signal handler that calls a secret function must not find its own thread holding the lock. */
static void lock(struct cafe_state *state, sigset_t *before) {
    sigset_t all;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, before);
    (void)pthread_mutex_lock(&state->turns.lock);
}

static void unlock(struct cafe_state *state, const sigset_t *before) {
    (void)pthread_mutex_unlock(&state->turns.lock);
    (void)pthread_sigmask(SIG_SETMASK, before, NULL);
}

static uint32_t word_of(struct cafe_state *state, uint32_t seat) {
    return __atomic_load_n(&state->seats[seat].word, __ATOMIC_ACQUIRE);
}

static bool change(struct cafe_state *state, uint32_t seat, uint32_t from, uint32_t to) {
    return __atomic_compare_exchange_n(&state->seats[seat].word, &from, to, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_RELAXED);
}

struct survey {
    uint32_t turns; /* how many there are */
    uint32_t free, idle, lender;
    bool own; /* `idle` is the thread's own */
};

static struct survey look_round(struct cafe_state *state, const struct cafe_thread *who) {
    struct survey seen = {0, NO_SEAT, NO_SEAT, NO_SEAT, false};
    for (uint32_t seat = 0; seat < state->turns.seats; seat++) {
        const uint32_t word = word_of(state, seat), as = word & CAFE_SEAT_STATE;
        seen.turns += (word & CAFE_SEAT_TURN) != 0;
        if (as == CAFE_SEAT_FREE && seen.free == NO_SEAT) {
            seen.free = seat;
        } else if (as == CAFE_SEAT_IDLE && !seen.own) {
            seen.own = word >> CAFE_SEAT_OWNER == who->owner >> CAFE_SEAT_OWNER;
            seen.idle = seat;
        } else if ((as == CAFE_SEAT_ASLEEP || as == CAFE_SEAT_OUT) && (word & CAFE_SEAT_TURN)) {
            seen.lender = seat;
        }
    }
    return seen;
}

/* Take the turn from a seat that does not need it now. */
static bool borrow_turn(struct cafe_state *state, uint32_t seat) {
    if (seat == NO_SEAT) {
        return false;
    }
    const uint32_t word = word_of(state, seat), as = word & CAFE_SEAT_STATE;
    return (as == CAFE_SEAT_ASLEEP || as == CAFE_SEAT_OUT) && (word & CAFE_SEAT_TURN) &&
           change(state, seat, word, word & ~CAFE_SEAT_TURN);
}

static bool take_over(struct cafe_state *state, uint32_t seat, const struct cafe_thread *who) {
    if (seat == NO_SEAT) {
        return false;
    }
    const uint32_t word = word_of(state, seat);
    return (word & CAFE_SEAT_STATE) == CAFE_SEAT_IDLE &&
           change(state, seat, word, who->owner | CAFE_SEAT_TURN | CAFE_SEAT_BUSY);
}

/* Seat a thread, with a turn, if that can be had. */
static bool claim(struct cafe_state *state, struct cafe_thread *who) {
    const struct survey seen = look_round(state, who);
    uint32_t seat = NO_SEAT;
    if (seen.own && take_over(state, seen.idle, who)) {
        seat = seen.idle;
    } else if (seen.free != NO_SEAT && (seen.turns < state->turns.width || borrow_turn(state, seen.lender))) {
        seat = seen.free;
        __atomic_store_n(&state->seats[seat].word, who->owner | CAFE_SEAT_TURN | CAFE_SEAT_BUSY,
                         __ATOMIC_RELEASE);
    } else if (take_over(state, seen.idle, who)) {
        seat = seen.idle;
    } else {
        return false;
    }
    who->seat = seat;
    who->since = __rdtsc();
    return true;
}

/* Whether the CPU set of this thread shows that more threads may spin than was known. */
static bool widen(struct cafe_state *state) {
    cpu_set_t mine;
    if (sched_getaffinity(0, sizeof mine, &mine) != 0) {
        return false;
    }
    CPU_OR(&state->turns.cpus, &state->turns.cpus, &mine);
    const int cpus = CPU_COUNT(&state->turns.cpus);
    const uint32_t before = state->turns.width;
    state->turns.width = cpus > 2 ? (uint32_t)cpus - 1 : 1; /* one is the enclave's */
    return state->turns.width > before;
}

static void join_queue(struct cafe_state *state, struct cafe_thread *me) {
    me->next = NULL;
    __atomic_store_n(&me->granted, 0, __ATOMIC_RELAXED);
    if (state->turns.first == NULL) {
        state->turns.first = me;
    } else {
        state->turns.last->next = me;
    }
    state->turns.last = me;
    (void)__atomic_add_fetch(&state->waiters, 1, __ATOMIC_RELAXED);
}

static void leave_queue(struct cafe_state *state, struct cafe_thread *who) {
    struct cafe_thread *before = NULL;
    for (struct cafe_thread *at = state->turns.first; at != who; at = at->next) {
        before = at;
    }
    *(before == NULL ? &state->turns.first : &before->next) = who->next;
    if (state->turns.last == who) {
        state->turns.last = before;
    }
    (void)__atomic_sub_fetch(&state->waiters, 1, __ATOMIC_RELAXED);
}

/* Seat the first of the queue, for as long as that goes, and have the next one look round. */
static void dispatch(struct cafe_state *state) {
    struct cafe_thread *first = state->turns.first;
    const struct cafe_thread *before = first;
    for (; first != NULL && claim(state, first); first = state->turns.first) {
        leave_queue(state, first);
        __atomic_store_n(&first->granted, 1, __ATOMIC_RELEASE);
        cafe_futex_wake(&first->granted, 1, false);
    }
    if (first != NULL && first != before) {
        cafe_futex_wake(&first->granted, 1, false);
    }
}

/* Under the lock: what a thread of the queue finds when it looks. */
static enum cafe_turn try_turn(struct cafe_state *state, struct cafe_thread *me) {
    if (__atomic_load_n(&me->granted, __ATOMIC_RELAXED)) {
        return CAFE_TURN_TAKEN;
    }
    if (state->turns.seats == 0) {
        leave_queue(state, me);
        return CAFE_TURN_CLOSED;
    }
    if (state->turns.first != me || !claim(state, me)) {
        return CAFE_TURN_NONE;
    }
    leave_queue(state, me);
    if (state->turns.first != NULL) {
        cafe_futex_wake(&state->turns.first->granted, 1, false);
    }
    return CAFE_TURN_TAKEN;
}

static enum cafe_turn wait_in_queue(struct cafe_state *state, struct cafe_thread *me, bool first) {
    enum cafe_turn turn = CAFE_TURN_NONE;
    for (long nap = FIRST_NAP; turn == CAFE_TURN_NONE;) {
        cafe_futex_wait(&me->granted, 0, first ? nap : OTHERS_NAP, false);
        if (__atomic_load_n(&me->granted, __ATOMIC_ACQUIRE)) {
            return CAFE_TURN_TAKEN;
        }
        sigset_t before;
        nap = first && nap < LONGEST_NAP ? nap * 2 : nap;
        lock(state, &before);
        turn = try_turn(state, me);
        first = state->turns.first == me;
        unlock(state, &before);
    }
    return turn;
}

/* A seat without a turn, for a call that interrupts another of its thread. */
static enum cafe_turn take_beside(struct cafe_state *state, uint32_t *seat) {
    *seat = look_round(state, cafe_self()).free;
    if (*seat == NO_SEAT) {
        return CAFE_TURN_NONE;
    }
    __atomic_store_n(&state->seats[*seat].word, cafe_self()->owner | CAFE_SEAT_BUSY, __ATOMIC_RELEASE);
    return CAFE_TURN_TAKEN;
}

enum cafe_turn cafe_turn_take(struct cafe_state *state, bool hurry, uint32_t *seat) {
    struct cafe_thread *me = cafe_self();
    enum cafe_turn turn = CAFE_TURN_NONE;
    bool first = false;
    sigset_t before;
    lock(state, &before);
    if (state->turns.seats == 0) {
        turn = CAFE_TURN_CLOSED;
    } else if (hurry) {
        turn = take_beside(state, seat);
    } else if (state->turns.first == NULL && (claim(state, me) || (widen(state) && claim(state, me)))) {
        turn = CAFE_TURN_TAKEN;
    } else {
        join_queue(state, me);
        first = state->turns.first == me;
    }
    unlock(state, &before);
    if (hurry) {
        return turn;
    }
    if (turn == CAFE_TURN_NONE) {
        turn = wait_in_queue(state, me, first);
    }
    *seat = me->seat;
    return turn;
}

CAFE_COLD void cafe_turn_release(struct cafe_state *state, uint32_t seat) {
    const struct cafe_thread *me = cafe_self();
    const uint32_t word = word_of(state, seat), as = word & CAFE_SEAT_STATE;
    if (me->owner == 0 || word >> CAFE_SEAT_OWNER != me->owner >> CAFE_SEAT_OWNER) {
        return; /* a forked child has none of its parent's seats */
    }
    if ((word & CAFE_SEAT_TURN) && as == CAFE_SEAT_BUSY && __rdtsc() - me->since < QUANTUM_CYCLES) {
        __atomic_store_n(&state->seats[seat].word, me->owner | CAFE_SEAT_TURN | CAFE_SEAT_IDLE,
                         __ATOMIC_RELEASE);
        return;
    }
    sigset_t before;
    lock(state, &before);
    const bool absent = as == CAFE_SEAT_STALE && seat >= state->turns.seats;
    __atomic_store_n(&state->seats[seat].word, absent ? CAFE_SEAT_ABSENT : CAFE_SEAT_FREE, __ATOMIC_RELEASE);
    dispatch(state);
    unlock(state, &before);
}

void cafe_turn_offer(struct cafe_state *state) {
    if (__atomic_load_n(&state->waiters, __ATOMIC_RELAXED) != 0) {
        sigset_t before;
        lock(state, &before);
        dispatch(state);
        unlock(state, &before);
    }
}

void cafe_turns_set(struct cafe_state *state, uint32_t seats) {
    sigset_t before;
    lock(state, &before);
    state->turns.seats = seats;
    dispatch(state);
    for (struct cafe_thread *who = state->turns.first; seats == 0 && who != NULL; who = who->next) {
        cafe_futex_wake(&who->granted, 1, false);
    }
    unlock(state, &before);
}

void cafe_turns_start(struct cafe_state *state) {
    state->turns = (struct cafe_turns){.width = 1};
    state->waiters = 0;
    (void)pthread_mutex_init(&state->turns.lock, NULL);
}
