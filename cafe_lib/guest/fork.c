/*
 * fork.c - a child has no part in its parent's calls: it forgets channel and connection, and gets its own
 * enclave when it calls. The channel itself is not inherited (MADV_DONTFORK).
 */
#define _GNU_SOURCE
#include "state.h"

#include <sys/mman.h>
#include <unistd.h>

/* Forked in a callback: the calls around it are the parent's to finish. The child's stubs may still write
 * into their slots, so let some memory be there. */
static void forget_calls(void) {
    for (struct cafe_call *call = cafe_self()->open; call != NULL; call = call->outer) {
        cafe_call_fail(call, CAFE_E_EXITED, NULL);
        call->blocks = NULL;
        if (call->inner != NULL && !call->nested) {
            const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
            (void)mmap(call->slot, call->slot_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
        }
    }
}

static void forget(void) {
    for (struct cafe_state *state = cafe_first_state(); state != NULL; state = state->next) {
        if (state->connection >= 0) {
            (void)close(state->connection); /* the parent's stays open */
        }
        state->connection = -1;
        state->region = NULL;
        state->slot_count = 0;
        state->broken = CAFE_OK;
        state->mapping = NULL; /* what described it is lost: another thread may have been changing it */
        (void)pthread_mutex_init(&state->lock, NULL);
        (void)pthread_mutex_init(&state->bulk_lock, NULL);
        cafe_turns_start(state);
        for (uint32_t seat = 0; seat < CAFE_MAX_SLOTS; seat++) {
            state->seats[seat].word = CAFE_SEAT_ABSENT;
        }
    }
    forget_calls();
}

void cafe_fork_install(void) {
    (void)pthread_atfork(NULL, NULL, forget);
}
