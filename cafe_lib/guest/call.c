/* call.c - the steps of one call, as the generated stubs take them. What seldom happens is out of their way.
 */
#include "seat.h"

#include <x86intrin.h>

#define EAGER_TURNS 32u /* at full speed */
#define QUICK_TURNS 80u /* then with pauses: a microsecond in all, as cores that are far apart need it */

__thread struct cafe_thread cafe_me;

CAFE_COLD void cafe_call_fail(struct cafe_call *call, enum cafe_status status, const char *detail) {
    if (call->status == CAFE_OK) {
        call->status = status;
        cafe_error_set(status, detail);
    }
}

void cafe_call_check(struct cafe_call *call, bool good) {
    if (!good) {
        cafe_call_fail(call, CAFE_E_MALFORMED,
                       "a size is negative or too large; check the counts of this call");
    }
}

uint64_t cafe_call_string(struct cafe_call *call, const char *text, uint64_t most) {
    const uint64_t length = strnlen(text, most);
    if (length == most) {
        cafe_call_fail(call, CAFE_E_LIMIT, "a string is longer than its CAFE_STR allows");
        return 0;
    }
    return length + 1;
}

/* The seat this thread had last, if it is in no call. */
static inline bool seat_quickly(struct cafe_call *call, struct cafe_thread *me) {
    struct cafe_state *state = call->state;
    if (!CAFE_LIKELY(state != NULL && me->open == NULL)) {
        return false;
    }
    me->open = call; /* first: a signal handler's call must see it */
    if (!CAFE_LIKELY(cafe_seat_again(state, me))) {
        return false;
    }
    call->seat = me->seat;
    return CAFE_LIKELY(cafe_channel_alive(state)); /* else cafe_seat_take finds its seat BUSY, and renews */
}

static inline void sit(struct cafe_call *call, uint64_t fixed_bytes) {
    call->slot_bytes = call->state->slot_bytes;
    call->slot = call->state->region + CAFE_CHANNEL_HEADER_BYTES + call->seat * call->slot_bytes;
    call->offset = CAFE_SLOT_FRAME + fixed_bytes;
    if (!CAFE_LIKELY(call->offset <= call->slot_bytes)) {
        cafe_call_fail(call, CAFE_E_LIMIT, NULL);
    }
}

/* The call of the same library that this one is made from a callback of, if any: they share its slot. */
static enum cafe_status seat_nested(struct cafe_call *call, const struct cafe_call *around) {
    if (around->depth == CAFE_MAX_NESTING) {
        cafe_error_set(CAFE_E_LIMIT, "too many secret functions and callbacks have called each other");
        return CAFE_E_LIMIT;
    }
    if (!cafe_seat_resume(call->state, around->seat)) {
        cafe_error_set(CAFE_E_EXITED, NULL);
        return CAFE_E_EXITED;
    }
    call->nested = true;
    call->seat = around->seat;
    call->depth = around->depth + 1;
    return CAFE_OK;
}

static enum cafe_status seat_slowly(struct cafe_call *call, struct cafe_thread *me) {
    if (call->state == NULL) { /* called from a constructor that ran before ours */
        cafe_register(call->library);
        call->state = __atomic_load_n(&call->library->state, __ATOMIC_ACQUIRE);
    }
    if (me->open == call) {
        cafe_turn_release(call->state, me->seat); /* taken, but the channel has ended; else not ours */
    } else {
        call->outer = me->open;
        me->open = call;
    }
    const struct cafe_call *around = call->outer;
    const bool interrupts = around != NULL && around->inner == NULL; /* we are in a signal handler */
    while (around != NULL && around->state != call->state) {
        around = around->outer;
    }
    if (around != NULL && around->inner != NULL && !interrupts) {
        return seat_nested(call, around);
    }
    return cafe_seat_take(call->state, around != NULL, &call->seat);
}

CAFE_COLD static void enter_slowly(struct cafe_call *call, uint64_t fixed_bytes) {
    call->status = seat_slowly(call, cafe_self());
    if (call->status == CAFE_OK) {
        sit(call, fixed_bytes);
    } else { /* the error is set, with the agent's own words */
        cafe_self()->open = call->outer;
    }
}

void cafe_call_enter(struct cafe_call *call, uint64_t fixed_bytes) {
    if (CAFE_LIKELY(call->status == CAFE_OK)) {
        if (CAFE_LIKELY(seat_quickly(call, cafe_self()))) {
            sit(call, fixed_bytes);
        } else {
            enter_slowly(call, fixed_bytes);
        }
    }
}

static inline enum cafe_status exchange(struct cafe_call *call, uint32_t entry, uint32_t returned) {
    struct cafe_slot *slot = (struct cafe_slot *)(void *)call->slot;
    const uint32_t number = ++call->state->seats[call->seat].sequence;
    slot->entry = entry;
    slot->returned = returned;
    __atomic_store_n(&slot->request, number, __ATOMIC_RELEASE);
    for (uint32_t turn = 0; turn < QUICK_TURNS; turn++) {
        if (__atomic_load_n(&slot->reply, __ATOMIC_ACQUIRE) == number) {
            return CAFE_OK;
        }
        if (turn >= EAGER_TURNS) {
            _mm_pause();
        }
    }
    return cafe_wait_reply(call, slot, number);
}

CAFE_COLD enum cafe_status cafe_call_exchange(struct cafe_call *call, uint32_t entry, uint32_t returned) {
    return exchange(call, entry, returned);
}

void cafe_call_run(struct cafe_call *call) {
    if (call->status != CAFE_OK) {
        return;
    }
    const enum cafe_status status = exchange(call, call->entry, 0);
    const struct cafe_slot *slot = (const struct cafe_slot *)(const void *)call->slot;
    const uint32_t answer = __atomic_load_n(&slot->status, __ATOMIC_RELAXED);
    if (!CAFE_LIKELY(status == CAFE_OK && answer == CAFE_OK)) {
        cafe_call_resume(call, status, answer);
    }
}

CAFE_COLD void cafe_call_leave(struct cafe_call *call) {
    cafe_bulk_give(call->state, call->blocks);
    if (call->nested) {
        cafe_seat_pause(call->state, call->seat, CAFE_SEAT_OUT);
    } else if (!cafe_seat_keep(call->state, cafe_self(), call->seat)) {
        cafe_turn_release(call->state, call->seat);
    }
    cafe_self()->open = call->outer;
}

CAFE_COLD static void finish_slowly(const struct cafe_call *call, bool fatal) {
    if (call->status == CAFE_OK) {
        cafe_self()->status = CAFE_OK;
    } else if (fatal) {
        cafe_end_process(call->library->binding->functions[call->entry].name);
    }
}

void cafe_call_finish(struct cafe_call *call, bool fatal) {
    struct cafe_thread *me = cafe_self();
    if (CAFE_LIKELY(call->status == CAFE_OK && call->blocks == NULL && !call->nested &&
                    cafe_seat_keep(call->state, me, call->seat))) {
        me->open = call->outer;
        me->status = CAFE_OK;
        return;
    }
    if (call->slot != NULL) {
        cafe_call_leave(call);
    }
    finish_slowly(call, fatal);
}
