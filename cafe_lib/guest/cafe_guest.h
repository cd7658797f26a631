/*
 * cafe_guest.h - what a generated public stub uses of libcafe. Hidden from the program; cafe.h is its API.
 *
 * A stub starts a call, computes sizes, enters (takes a slot of the channel), places and copies its
 * arguments, runs, copies the results and finishes. Once a call has failed, every later step does nothing.
 */
#ifndef CAFE_GUEST_H
#define CAFE_GUEST_H

#include "cafe.h"
#include "cafe_abi.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define CAFE_PUBLIC __attribute__((visibility("default")))
#ifdef __cplusplus
#define CAFE_C extern "C"
extern "C" {
#else
#define CAFE_C extern
#endif

#pragma GCC visibility push(hidden)

/* A buffer of this size or less always goes into the slot: looking where it came from would cost more. */
#define CAFE_SMALL_BYTES 1024u

#define CAFE_SLOT_RESULT offsetof(struct cafe_slot, result)

/* A secret function: its name, its offset in the secret image, the stub that stands for it. */
struct cafe_function {
    const char *name;
    uint64_t offset;
    void (*stub)(void);
};

struct cafe_call;

/* A function of the public program that secret code may call. `serve` (generated) reads the frame in the
 * slot, calls `function` with private copies, and writes results back. Its `call` is made for this callback:
 * `offset` is the frame's start, its areas are placed with cafe_call_area, and a status other than CAFE_OK is
 * what the secret code gets. */
struct cafe_callback {
    const char *name;
    void (*function)(
        void); /* the program's own symbol, or what cafe_set_callback gave; atomic, may be NULL */
    void (*serve)(struct cafe_call *call, void (*function)(void));
};

/* What ties a public library to one released secret binary. */
struct cafe_binding {
    const char *name;
    uint8_t secret_binary_id[32];
    uint8_t interface_digest[32];
    uint64_t image_bytes;
    const struct cafe_function *functions;
    uint32_t function_count;
    struct cafe_callback *callbacks;
    uint32_t callback_count;
};

struct cafe_state;

struct cafe_library {
    const struct cafe_binding *binding;
    struct cafe_state *state; /* made by cafe_register */
};
#define CAFE_LIBRARY(binding) {binding, NULL}

/* One call; only libcafe looks inside. What a stub does between entering and running is inline: with constant
 * sizes it becomes a few moves. */
struct cafe_call {
    struct cafe_library *library;
    struct cafe_state *state;
    uint8_t *slot; /* shared; NULL until entered */
    uint64_t slot_bytes;
    uint64_t offset; /* end of the areas placed so far */
    uint32_t entry;
    uint32_t seat;
    enum cafe_status status;
    uint32_t depth;            /* nested calls around this one in its slot */
    bool nested;               /* made from a callback: its seat is the outer call's */
    struct cafe_block *blocks; /* of the bulk area, given back at the end */
    struct cafe_call *outer;   /* the call of this thread, of any library, around this one */
    struct cafe_call *inner;   /* what serves a callback now; NULL: none is out */
};

/* Where a buffer crosses: `at` in shared memory. */
struct cafe_place {
    uint64_t word; /* what stands in the frame for the pointer */
    uint8_t *at;   /* NULL: nothing to copy, since it is null or lies in the bulk area already */
    uint64_t bytes;
};

/* Reserve the range where the secret code would be, and catch calls into it. Does nothing the second time. */
void cafe_register(struct cafe_library *library);

static inline void cafe_call_start(struct cafe_call *call, struct cafe_library *library, uint32_t entry) {
    memset(call, 0, sizeof *call);
    call->library = library;
    call->state = __atomic_load_n(&library->state, __ATOMIC_ACQUIRE);
    call->entry = entry;
}

/* The first failure of a call counts; detail NULL: the status's own sentence. */
void cafe_call_fail(struct cafe_call *call, enum cafe_status status, const char *detail);

/* The call fails with CAFE_E_MALFORMED if a size expression did. */
void cafe_call_check(struct cafe_call *call, bool good);

/* Length of `text` with its NUL; the call fails with CAFE_E_LIMIT if that is over `most`. */
uint64_t cafe_call_string(struct cafe_call *call, const char *text, uint64_t most);

/* Take a slot; starts the enclave if there is none. `fixed_bytes`: size of the frame's fixed part. */
void cafe_call_enter(struct cafe_call *call, uint64_t fixed_bytes);

/* The position of the next area in the slot; the call fails with CAFE_E_LIMIT if it does not fit. */
static inline uint64_t cafe_call_area(struct cafe_call *call, uint64_t count, uint64_t element_bytes,
                                      uint64_t align) {
    uint64_t bytes = 0;
    if (call->status != CAFE_OK) {
        return 0;
    }
    const uint64_t start = (call->offset + align - 1) & ~(align - 1); /* both far below 2^63 */
    if (__builtin_mul_overflow(count, element_bytes, &bytes) || start > call->slot_bytes ||
        bytes > call->slot_bytes - start) {
        cafe_call_fail(call, CAFE_E_LIMIT, NULL);
        return 0;
    }
    call->offset = start + bytes;
    return start;
}

static inline void cafe_call_put(struct cafe_call *call, uint64_t at, const void *source, uint64_t bytes) {
    if (call->status == CAFE_OK && source != NULL && bytes != 0) {
        memcpy(call->slot + at, source, bytes);
    }
}

static inline void cafe_call_word(struct cafe_call *call, uint64_t at, uint64_t word) {
    cafe_call_put(call, at, &word, sizeof word);
}

/* Place a buffer of the bulk area: because `pointer` came from cafe_alloc, or because no slot has room. */
void cafe_call_place_bulk(struct cafe_call *call, struct cafe_place *place, const void *pointer,
                          uint64_t bytes);

/* Does the memory at `pointer` come from cafe_alloc of this call's library? */
bool cafe_call_owns(const struct cafe_call *call, const void *pointer);

/* Find a place for a parameter's buffer: in the slot if it is small enough, else in the bulk area. */
static inline void cafe_call_place(struct cafe_call *call, struct cafe_place *place, const void *pointer,
                                   uint64_t count, uint64_t element_bytes) {
    uint64_t bytes = 0;
    *place = (struct cafe_place){0, NULL, 0};
    if (call->status != CAFE_OK || pointer == NULL) {
        return;
    }
    if (__builtin_mul_overflow(count, element_bytes, &bytes)) {
        cafe_call_fail(call, CAFE_E_LIMIT, NULL);
        return;
    }
    const uint64_t start = (call->offset + 15) & ~(uint64_t)15;
    if (bytes > CAFE_SMALL_BYTES || start > call->slot_bytes || bytes > call->slot_bytes - start) {
        cafe_call_place_bulk(call, place, pointer, bytes); /* falls back to the slot where there is no bulk */
        return;
    }
    place->word = 1;
    place->at = call->slot + start;
    place->bytes = bytes;
    call->offset = start + bytes;
}

/* Publish the request and wait for the reply; serves callbacks meanwhile and sets errno. */
void cafe_call_run(struct cafe_call *call);

static inline void cafe_call_get(struct cafe_call *call, uint64_t at, void *target, uint64_t bytes) {
    if (call->status == CAFE_OK && target != NULL && bytes != 0) {
        memcpy(target, call->slot + at, bytes);
    }
}

/* Give the slot back and set this thread's error; ends the process if `fatal` and the call has failed. */
void cafe_call_finish(struct cafe_call *call, bool fatal);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
