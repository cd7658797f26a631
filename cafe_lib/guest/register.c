/* register.c - the protected libraries of this process, and the ranges that stand for their secret code. */
#define _GNU_SOURCE
#include "state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct cafe_state *first; /* only ever grows at its head; atomic, read by the signal handler */
static pthread_mutex_t registering = PTHREAD_MUTEX_INITIALIZER;

struct cafe_state *cafe_first_state(void) {
    return __atomic_load_n(&first, __ATOMIC_ACQUIRE);
}

static struct cafe_state *new_state(const struct cafe_binding *binding) {
    struct cafe_state *state = aligned_alloc(CAFE_CACHE_LINE, (sizeof *state + CAFE_CACHE_LINE - 1) &
                                                                  ~(size_t)(CAFE_CACHE_LINE - 1));
    if (state == NULL) {
        static const char text[] = "cafe: out of memory while the program starts\n";
        ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
        (void)written;
        _exit(CAFE_EXIT_CODE);
    }
    memset(state, 0, sizeof *state); /* every seat ABSENT */
    state->binding = binding;
    state->connection = -1;
    (void)pthread_mutex_init(&state->lock, NULL);
    (void)pthread_mutex_init(&state->bulk_lock, NULL);
    cafe_turns_start(state);
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *range = mmap(NULL, binding->image_bytes, PROT_NONE, flags, -1, 0);
    state->range = range == MAP_FAILED ? NULL : range;
    return state;
}

void cafe_register(struct cafe_library *library) {
    (void)pthread_mutex_lock(&registering);
    if (library->state == NULL) {
        struct cafe_state *state = new_state(library->binding);
        state->next = first;
        if (first == NULL) {
            cafe_fork_install();
            cafe_trap_install();
        }
        __atomic_store_n(&first, state, __ATOMIC_RELEASE);
        __atomic_store_n(&library->state, state, __ATOMIC_RELEASE);
    }
    (void)pthread_mutex_unlock(&registering);
}

struct cafe_state *cafe_find_state(const char *library) {
    struct cafe_state *found = NULL;
    for (struct cafe_state *state = cafe_first_state(); state != NULL; state = state->next) {
        if (library == NULL || strcmp(state->binding->name, library) == 0) {
            found = state; /* the last of the list came first */
        }
    }
    return found;
}

CAFE_PUBLIC void *cafe_secret_base(const char *library) {
    const struct cafe_state *state = cafe_find_state(library);
    return state == NULL ? NULL : state->range;
}

CAFE_PUBLIC size_t cafe_secret_size(const char *library) {
    const struct cafe_state *state = cafe_find_state(library);
    return state == NULL || state->range == NULL ? 0 : state->binding->image_bytes;
}

CAFE_PUBLIC void *cafe_secret_address(const char *function) {
    for (const struct cafe_state *state = cafe_first_state(); state != NULL; state = state->next) {
        for (uint32_t i = 0; state->range != NULL && i < state->binding->function_count; i++) {
            if (strcmp(state->binding->functions[i].name, function) == 0) {
                return state->range + state->binding->functions[i].offset;
            }
        }
    }
    return NULL;
}
