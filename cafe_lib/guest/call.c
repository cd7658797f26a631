/* call.c - the steps of one call, as the generated stubs take them. */
#include "state.h"

#include <string.h>

void cafe_call_start(struct cafe_call *call, struct cafe_library *library, uint32_t entry) {
    struct cafe_state *state = __atomic_load_n(&library->state, __ATOMIC_ACQUIRE);
    if (state == NULL) { /* called from a constructor that ran before ours */
        cafe_register(library);
        state = __atomic_load_n(&library->state, __ATOMIC_ACQUIRE);
    }
    *call = (struct cafe_call){.library = library, .state = state, .entry = entry};
}

void cafe_call_fail(struct cafe_call *call, enum cafe_status status, const char *detail) {
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

void cafe_call_enter(struct cafe_call *call, uint64_t fixed_bytes) {
    if (call->status != CAFE_OK) {
        return;
    }
    const enum cafe_status status = cafe_seat_take(call->state, &call->seat);
    if (status != CAFE_OK) {
        call->status = status; /* the error is set, with the agent's own words */
        return;
    }
    call->slot_bytes = call->state->slot_bytes;
    call->slot = call->state->region + CAFE_CHANNEL_HEADER_BYTES + call->seat * call->slot_bytes;
    call->offset = CAFE_SLOT_FRAME + fixed_bytes;
    if (call->offset > call->slot_bytes) {
        cafe_call_fail(call, CAFE_E_LIMIT, NULL);
    }
}

void cafe_call_run(struct cafe_call *call) {
    if (call->status != CAFE_OK) {
        return;
    }
    struct cafe_slot *slot = (struct cafe_slot *)(void *)call->slot;
    const uint32_t number = ++call->state->seats[call->seat].sequence;
    slot->entry = call->entry;
    __atomic_store_n(&slot->request, number, __ATOMIC_RELEASE);
    enum cafe_status status = cafe_wait_reply(call->state, slot, number);
    if (status == CAFE_OK) {
        const uint32_t answered = __atomic_load_n(&slot->status, __ATOMIC_RELAXED);
        status = (enum cafe_status)answered;
        if (!cafe_status_known(answered)) {
            status = CAFE_E_MALFORMED;
            cafe_channel_break(call->state, status);
        }
    }
    if (status != CAFE_OK) {
        cafe_call_fail(call, status, NULL);
    }
}

bool cafe_call_truth(struct cafe_call *call, bool otherwise) {
    uint8_t byte = otherwise;
    cafe_call_get(call, CAFE_SLOT_RESULT, &byte, sizeof byte);
    return byte != 0;
}

void cafe_call_finish(struct cafe_call *call, bool fatal) {
    if (call->slot != NULL) {
        cafe_seat_release(call->state, call->seat);
    }
    if (call->status == CAFE_OK) {
        cafe_error_set(CAFE_OK, NULL);
    } else if (fatal) {
        cafe_end_process(call->library->binding->functions[call->entry].name);
    }
}
