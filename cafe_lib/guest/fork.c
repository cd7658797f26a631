/*
 * fork.c - a child has no part in its parent's calls: it forgets channel and connection, and gets its own
 * enclave when it calls. The channel itself is not inherited (MADV_DONTFORK).
 */
#include "state.h"

#include <unistd.h>

static void forget(void) {
    for (struct cafe_state *state = cafe_first_state(); state != NULL; state = state->next) {
        if (state->connection >= 0) {
            (void)close(state->connection); /* the parent's stays open */
        }
        state->connection = -1;
        state->region = NULL;
        state->region_bytes = 0;
        state->slot_count = 0;
        state->broken = CAFE_OK;
        state->waiters = 0;
        (void)pthread_mutex_init(&state->lock, NULL);
        for (uint32_t seat = 0; seat < CAFE_MAX_SLOTS; seat++) {
            state->seats[seat].taken = CAFE_SEAT_ABSENT;
        }
    }
}

void cafe_fork_install(void) {
    (void)pthread_atfork(NULL, NULL, forget);
}
