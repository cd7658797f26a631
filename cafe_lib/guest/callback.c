/* callback.c - answers that are not simply a success: a failure, an errno, a callback to serve. */
#include "seat.h"

#include <errno.h>

#define CODE 0xffffu
#define ERRNO_SHIFT 16
#define MOST_REFUSED 64u /* callbacks of a call whose thread has gone */

static uint32_t answer_of(const struct cafe_call *call) {
    const struct cafe_slot *slot = (const struct cafe_slot *)(const void *)call->slot;
    return __atomic_load_n(&slot->status, __ATOMIC_RELAXED);
}

static void break_channel(struct cafe_call *call, enum cafe_status status) {
    cafe_channel_break(call->state, status);
    cafe_call_fail(call, status, NULL);
}

/* An exception, pthread_exit or cancellation leaves a callback through us. Its call goes on in the enclave,
 * so see it to its end, or the slot would be lost to everyone. */
static void see_to_end(struct cafe_call **unwound) {
    struct cafe_call *call = *unwound;
    if (call == NULL) {
        return;
    }
    if (cafe_seat_resume(call->state, call->seat)) {
        enum cafe_status status = CAFE_OK;
        uint32_t answer = CAFE_STATUS_CALLBACK, refused = 0;
        while (status == CAFE_OK && answer == CAFE_STATUS_CALLBACK && refused++ < MOST_REFUSED) {
            status = cafe_call_exchange(call, CAFE_ENTRY_RETURN, CAFE_E_CALLBACK);
            answer = answer_of(call);
        }
        if (status == CAFE_OK && answer == CAFE_STATUS_CALLBACK) {
            cafe_channel_break(call->state, CAFE_E_CALLBACK);
        }
    }
    cafe_bulk_give(call->state, call->inner->blocks);
    cafe_call_leave(call);
}

/* What `returned` says to the enclave. */
static uint32_t serve(struct cafe_call *call, const struct cafe_callback *callback) {
    struct cafe_call inner = {.library = call->library, .state = call->state, .slot = call->slot};
    void (*function)(void) = __atomic_load_n(&callback->function, __ATOMIC_ACQUIRE);
    const int before = errno;
    if (function == NULL) {
        return CAFE_E_CALLBACK;
    }
    inner.slot_bytes = call->slot_bytes;
    inner.offset = CAFE_SLOT_FRAME;
    call->inner = &inner;
    cafe_seat_pause(call->state, call->seat, CAFE_SEAT_OUT);
    errno = 0;
    {
        struct cafe_call *unwound __attribute__((cleanup(see_to_end))) = call;
        callback->serve(&inner, function);
        unwound = NULL;
    }
    const uint32_t error = errno > 0 && errno <= (int)CAFE_MAX_ERRNO ? (uint32_t)errno : 0;
    errno = before;
    cafe_bulk_give(call->state, inner.blocks);
    call->inner = NULL;
    if (!cafe_seat_resume(call->state, call->seat)) {
        cafe_call_fail(call, CAFE_E_EXITED, NULL);
    }
    return (uint32_t)inner.status | error << ERRNO_SHIFT;
}

static enum cafe_status call_back(struct cafe_call *call) {
    const struct cafe_binding *binding = call->library->binding;
    const struct cafe_slot *slot = (const struct cafe_slot *)(const void *)call->slot;
    const uint32_t *first = (const uint32_t *)(const void *)slot->result;
    const uint32_t number = __atomic_load_n(first, __ATOMIC_RELAXED); /* once */
    if (number >= binding->callback_count) {
        break_channel(call, CAFE_E_MALFORMED);
        return CAFE_E_MALFORMED;
    }
    const uint32_t returned = serve(call, &binding->callbacks[number]);
    return call->status == CAFE_OK ? cafe_call_exchange(call, CAFE_ENTRY_RETURN, returned) : call->status;
}

CAFE_COLD void cafe_call_resume(struct cafe_call *call, enum cafe_status status, uint32_t answer) {
    while (status == CAFE_OK && answer == CAFE_STATUS_CALLBACK) {
        status = call_back(call);
        answer = status == CAFE_OK ? answer_of(call) : 0;
    }
    const uint32_t error = answer >> ERRNO_SHIFT;
    if (status == CAFE_OK && (!cafe_status_known(answer & CODE) || error > CAFE_MAX_ERRNO)) {
        break_channel(call, CAFE_E_MALFORMED);
    } else if (status != CAFE_OK || (answer & CODE) != CAFE_OK) {
        cafe_call_fail(call, status != CAFE_OK ? status : (enum cafe_status)(answer & CODE), NULL);
    } else if (error != 0) {
        errno = (int)error;
    }
}

CAFE_PUBLIC int cafe_set_callback(const char *name, void (*function)(void)) {
    int result = -1;
    for (struct cafe_state *state = cafe_first_state(); state != NULL; state = state->next) {
        for (uint32_t i = 0; i < state->binding->callback_count; i++) {
            struct cafe_callback *callback = &state->binding->callbacks[i];
            if (strcmp(callback->name, name) == 0) {
                __atomic_store_n(&callback->function, function, __ATOMIC_RELEASE);
                result = 0;
            }
        }
    }
    return result;
}
