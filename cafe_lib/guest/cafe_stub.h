/*
 * cafe_stub.h - what generated public stubs are written in, beside cafe_guest.h: pointers' words, and the
 * serving of callbacks.
 */
#ifndef CAFE_STUB_H
#define CAFE_STUB_H

#include "cafe_guest.h"
#include "cafe_padding.h"
#include "cafe_size.h"

#include <stdlib.h>

#ifdef __cpp_exceptions
#include <cxxabi.h>
#define CAFE_TRY try
#define CAFE_CATCH(call) /* a thread that ends unwinds, too, and must not be stopped */                      \
    catch (::abi::__forced_unwind &) {                                                                       \
        throw;                                                                                               \
    }                                                                                                        \
    catch (...) {                                                                                            \
        cafe_call_fail(call, CAFE_E_ABORT, "an exception left a callback");                                  \
    }
#else
#define CAFE_TRY
#define CAFE_CATCH(call)
#endif

#pragma GCC visibility push(hidden)

#define CAFE_SERVE_SMALL 1024u

static inline void cafe_set_word(uint8_t *at, uint64_t word) {
    memcpy(at, &word, sizeof word);
}

/* A callback's frame and the private copy of it that the program's function works on. Positions count from
 * the frame's start. A hostile enclave can make `bad` true, no more. */
struct cafe_serve {
    struct cafe_call *call;
    uint64_t room, offset; /* of the slot; end of the areas placed so far */
    uint8_t *memory;       /* as long as `offset` in the end */
    bool bad;
    uint8_t small[CAFE_SERVE_SMALL] __attribute__((aligned(16)));
};

/* Copy from the slot. What is shared may change at any time, so the compiler must not look there again. */
static inline void cafe_serve_copy(const struct cafe_serve *serve, uint64_t at, void *target,
                                   uint64_t bytes) {
    memcpy(target, serve->call->slot + CAFE_SLOT_FRAME + at, bytes);
    __asm__ volatile("" : : : "memory");
}

static inline void cafe_serve_open(struct cafe_serve *serve, struct cafe_call *call, uint64_t fixed_bytes) {
    serve->call = call;
    serve->room = call->slot_bytes - CAFE_SLOT_FRAME;
    serve->offset = fixed_bytes;
    serve->memory = NULL;
    serve->bad = fixed_bytes > serve->room;
}

/* The place of the next area, if it is `present`. */
static inline uint64_t cafe_serve_area(struct cafe_serve *serve, bool present, uint64_t count,
                                       uint64_t element_bytes, uint64_t align) {
    uint64_t bytes = 0;
    if (!present || serve->bad) {
        return 0;
    }
    /* the room is far below 2^63; alignment is that of the slot, and the frame starts at 80 of it */
    const uint64_t start = ((serve->offset + CAFE_SLOT_FRAME + align - 1) & ~(align - 1)) - CAFE_SLOT_FRAME;
    if (__builtin_mul_overflow(count, element_bytes, &bytes) || start > serve->room ||
        bytes > serve->room - start) {
        serve->bad = true;
        return 0;
    }
    serve->offset = start + bytes;
    return start;
}

/* False if the callback fails, which the secret code is then told. */
static inline bool cafe_serve_sound(struct cafe_serve *serve) {
    if (serve->bad) {
        cafe_call_fail(serve->call, CAFE_E_MALFORMED, "the enclave asked for a callback in a wrong way");
    }
    return !serve->bad;
}

/* Make the private copy, zeroed. */
static inline bool cafe_serve_ready(struct cafe_serve *serve) {
    if (!cafe_serve_sound(serve)) {
        return false;
    }
    if (serve->offset <= sizeof serve->small) {
        memset(serve->small, 0, serve->offset);
        serve->memory = serve->small;
    } else {
        serve->memory = (uint8_t *)calloc(1, serve->offset);
    }
    if (serve->memory == NULL) {
        cafe_call_fail(serve->call, CAFE_E_LIMIT, "out of memory for a callback's arguments");
        return false;
    }
    return true;
}

static inline void cafe_serve_take(struct cafe_serve *serve, uint64_t at, uint64_t bytes) {
    cafe_serve_copy(serve, at, serve->memory + at, bytes);
}

static inline void cafe_serve_give(struct cafe_serve *serve, uint64_t at, const void *source,
                                   uint64_t bytes) {
    memcpy(serve->call->slot + CAFE_SLOT_FRAME + at, source, bytes);
}

static inline void cafe_serve_close(struct cafe_serve *serve) {
    if (serve->memory != serve->small) {
        free(serve->memory);
    }
}

#pragma GCC visibility pop

#endif
