/*
 * rt_stub.h - what generated secret stubs are written in: the steps of an entry, and the frame of a callback.
 */
#ifndef RT_STUB_H
#define RT_STUB_H

#include "cafe_padding.h"
#include "cafe_size.h"
#include "rt.h"

#ifdef __cplusplus
#define CAFE_ENTRY extern "C"
#else
#define CAFE_ENTRY
#endif
#ifdef __cpp_exceptions /* none crosses: the call fails, and its objects have been destroyed as ever */
#define CAFE_TRY try
#define CAFE_CATCH(unlock)                                                                                   \
    catch (...) {                                                                                            \
        unlock;                                                                                              \
        return CAFE_E_ABORT;                                                                                 \
    }
#else
#define CAFE_TRY
#define CAFE_CATCH(unlock)
#endif

/* End the call with the status of a step that fails. */
#define CAFE_NEED(step)                                                                                      \
    do {                                                                                                     \
        const enum cafe_status failed = (step);                                                              \
        if (failed != CAFE_OK) {                                                                             \
            return failed;                                                                                   \
        }                                                                                                    \
    } while (0)
#define CAFE_REFUSE(condition)                                                                               \
    do {                                                                                                     \
        if (condition) {                                                                                     \
            return CAFE_E_MALFORMED;                                                                         \
        }                                                                                                    \
    } while (0)

#pragma GCC visibility push(hidden)

/* The rest of a result's place: an answer carries nothing of the one before it. */
static const uint8_t rt_zeros[CAFE_RESULT_BYTES] = {0};

static inline uint64_t rt_word(const uint8_t *at) {
    uint64_t word;
    __builtin_memcpy(&word, at, sizeof word);
    return word;
}

static inline void rt_set_word(uint8_t *at, uint64_t word) {
    __builtin_memcpy(at, &word, sizeof word);
}

static inline void rt_set_pointer(uint8_t *at, const void *pointer) {
    __builtin_memcpy(at, &pointer, sizeof pointer);
}

static inline enum cafe_status rt_room(struct rt_call *call, uint64_t bytes, uint64_t align,
                                       uint64_t *start) {
    return rt_area(&call->offset, bytes, 1, align, call->slot_bytes, start) ? CAFE_OK : CAFE_E_LIMIT;
}

/* A callback's frame, in the slot of the call that secret code is in. Nothing is placed after a failure,
 * and nothing written. Every size and position is private and settled before the guest hears of it. */
struct rt_frame {
    struct rt_call *call;
    uint64_t offset; /* end of the areas placed so far */
    enum cafe_status status;
};

static inline void rt_frame_open(struct rt_frame *frame, uint64_t fixed_bytes) {
    frame->call = rt_current();
    frame->offset = CAFE_SLOT_FRAME + fixed_bytes;
    frame->status = frame->call == NULL ? CAFE_E_CALLBACK : CAFE_OK;
}

static inline void rt_frame_check(struct rt_frame *frame, bool good) {
    if (!good && frame->status == CAFE_OK)
        frame->status = CAFE_E_MALFORMED;
}

/* Length of `text` with its NUL; the callback fails with CAFE_E_LIMIT if that is over `most`. */
static inline uint64_t rt_frame_string(struct rt_frame *frame, const char *text, uint64_t most) {
    for (uint64_t length = 0; length < most; length++) {
        if (text[length] == 0)
            return length + 1;
    }
    if (frame->status == CAFE_OK)
        frame->status = CAFE_E_LIMIT;
    return 0;
}

static inline uint64_t rt_frame_area(struct rt_frame *frame, uint64_t count, uint64_t element_bytes,
                                     uint64_t align) {
    uint64_t start = 0;
    if (frame->status == CAFE_OK &&
        !rt_area(&frame->offset, count, element_bytes, align, frame->call->slot_bytes, &start))
        frame->status = CAFE_E_LIMIT;
    return start;
}

static inline void rt_frame_put(const struct rt_frame *frame, uint64_t at, const void *source,
                                uint64_t bytes) {
    rt_write((volatile uint8_t *)frame->call->shared + at, source, bytes);
}

/* The same for elements with bits that hold no value, which may be of other secrets: these are sent as 0,
 * and were never anything else in shared memory. */
static inline void rt_frame_put_clear(const struct rt_frame *frame, uint64_t at, const void *source,
                                      uint64_t elements, uint64_t element_bytes,
                                      const struct cafe_hole *holes, uint32_t hole_count) {
    const uint8_t *from = (const uint8_t *)source;
    for (uint64_t element = 0; element < elements; element++, from += element_bytes, at += element_bytes) {
        uint32_t done = 0;
        for (const struct cafe_hole *hole = holes; hole < holes + hole_count; hole++) {
            rt_frame_put(frame, at + done, from + done, hole->offset - done);
            for (done = hole->offset; done < hole->offset + hole->count; done++) {
                const uint8_t kept = (uint8_t)(from[done] & hole->mask);
                rt_frame_put(frame, at + done, &kept, 1);
            }
        }
        rt_frame_put(frame, at + done, from + done, element_bytes - done);
    }
}

/* Have the public program run it. Whatever it says went wrong, to secret code its callback failed. */
static inline void rt_frame_run(struct rt_frame *frame, uint32_t number) {
    if (frame->status == CAFE_OK && rt_callback(frame->call, number) != CAFE_OK)
        frame->status = CAFE_E_CALLBACK;
}

static inline void rt_frame_get(const struct rt_frame *frame, uint64_t at, void *target, uint64_t bytes) {
    rt_read(target, frame->call->slot + at, bytes);
}

#pragma GCC visibility pop

#endif
