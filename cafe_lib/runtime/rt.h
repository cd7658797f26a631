/*
 * rt.h - the runtime inside every enclave, as the generated secret stub and the runtime's own files see it.
 *
 * The enclave has no kernel: what would be a system call either has its replacement here (memory, random
 * bytes, ending) or is a fault when reached.
 */
#ifndef RT_H
#define RT_H

#include "cafe_abi.h"
#include <rt_cross.h> /* in angle brackets: tests put one before it that checks every access */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(hidden)

/* One call, private to the enclave. A stub uses the first five members. */
struct rt_call {
    const volatile uint8_t *slot; /* the slot in shared memory: read each byte once, with rt_read */
    struct cafe_slot *shared;     /* the same slot, for results, with rt_write */
    uint8_t *arena;               /* private staging area, slot_bytes long; same positions */
    uint64_t slot_bytes;
    uint64_t offset;        /* end of the areas placed so far; the runtime wipes the arena up to there */
    struct rt_large *large; /* private copies of buffers in the bulk area */
    struct rt_call *outer;  /* the call from whose callback this one was made */
    struct rt_slot *own;    /* what the runtime knows of the slot */
    uint32_t depth;
};

/* A parameter's buffer: what the secret function gets, and where its bytes come from and go to. */
struct rt_buffer {
    uint8_t *at; /* private; NULL for a null pointer */
    volatile uint8_t *shared;
    uint64_t bytes;
};

/* End the enclave; what waits for a call gets `status`. */
__attribute__((noreturn)) void rt_abort(enum cafe_status status);

/* A buffer of the bulk area, with private memory from the heap that goes after the answer. */
enum cafe_status rt_large(struct rt_call *call, struct rt_buffer *buffer, uint64_t word, uint64_t bytes);

/* Find the buffer of `count` elements that a pointer's word stands for (cafe_abi.h). Nothing is copied yet.
 */
static inline enum cafe_status rt_buffer(struct rt_call *call, struct rt_buffer *buffer, uint64_t word,
                                         uint64_t count, uint64_t element_bytes) {
    uint64_t start, bytes;
    buffer->at = NULL;
    buffer->shared = NULL;
    buffer->bytes = 0;
    if (word == 0)
        return CAFE_OK;
    if (__builtin_mul_overflow(count, element_bytes, &bytes))
        return CAFE_E_LIMIT;
    if (word != 1)
        return rt_large(call, buffer, word, bytes);
    if (!rt_area(&call->offset, bytes, 1, 16, call->slot_bytes, &start))
        return CAFE_E_LIMIT;
    buffer->at = call->arena + start;
    buffer->shared = (volatile uint8_t *)call->shared + start;
    buffer->bytes = bytes;
    return CAFE_OK;
}

static inline void rt_take_in(const struct rt_buffer *buffer) {
    rt_read(buffer->at, buffer->shared, buffer->bytes);
}

static inline void rt_give_out(const struct rt_buffer *buffer) {
    rt_write(buffer->shared, buffer->at, buffer->bytes);
}

/* One call of a function at a time (CAFE_SERIAL); recursion from a nested call is allowed. */
struct rt_lock {
    uint32_t owner; /* vCPU + 1 */
    uint32_t depth;
};
void rt_lock(struct rt_lock *lock);
void rt_unlock(struct rt_lock *lock);

/* The call this thread is in, to make a callback from; NULL where none can be made (constructors). The
 * callback's frame is written straight into its slot. */
struct rt_call *rt_current(void);

/* Publish callback `number`, wait until the guest has returned from it, serve its nested calls meanwhile.
 * Sets errno as the public function left it. Results are read from the slot afterwards, each byte once. */
enum cafe_status rt_callback(struct rt_call *call, uint32_t number);

/* Make `function` (an assembler name) secret function number `i`, entered through cafe_entry_<i>, which
 * must be an external `enum cafe_status cafe_entry_<i>(struct rt_call *)`. */
#define CAFE_EXPORT(i, function)                                                                             \
    __asm__(".pushsection .cafe.exports." #i ",\"a\"\n .long cafe_entry_" #i " - .\n .popsection\n"          \
            ".pushsection .cafe.functions." #i ",\"a\"\n .long " #function " - .\n .popsection\n")

/* ---- between the runtime's own files */

typedef enum cafe_status rt_entry_function(struct rt_call *call);

/* A slot, privately. Several vCPUs look at it: whoever has claimed it may write. */
struct rt_slot {
    uint8_t *start;           /* of the region, shared */
    struct cafe_slot *shared; /* the slot itself */
    uint32_t served;          /* number of the last request taken up */
    uint32_t woken;           /* the number for whose answer the guest thread was woken */
    uint32_t claimed;
    uint32_t region, index;
};

/* One vCPU's thread. */
struct rt_cpu {
    const struct cafe_boot *boot;
    struct cafe_monitor *monitor;
    struct cafe_monitor_vcpu *own; /* of this vCPU */
    uint8_t *arena;
    int *error; /* this thread's errno */
    uint32_t number;
    struct rt_call *call; /* the innermost one that runs */
    struct rt_slot *hot;  /* where the last request came from */
    uint64_t budget;      /* TSC cycles that polling may last now */
    uint64_t since;       /* when it began to have nothing to do */
    uint32_t naps;
    bool napped; /* since the last request */
};
extern __thread struct rt_cpu rt_cpu;

/* Call with every general register but the stack pointer in a defined state; flags are sound afterwards. */
enum cafe_status rt_enter(rt_entry_function *entry, struct rt_call *call);

/* Put x87, MXCSR and vector registers into the state of a new thread; `wide`: vectors have 256 bits. */
void rt_fresh(uint64_t wide);

/* rt_serve.c: make the slots of all regions known; answer what comes, for ever. */
void rt_serve_start(const struct cafe_boot *boot);
__attribute__((noreturn)) void rt_serve(void);
bool rt_attached(const struct rt_slot *slot);          /* its process is still there */
enum cafe_status rt_run(struct rt_call *call);         /* the entry that the slot names */
void rt_answer(struct rt_slot *slot, uint32_t status); /* to the last request taken up */
void rt_wake(struct rt_slot *slot);                    /* the guest thread that sleeps there */
void rt_forget(struct rt_call *call);                  /* wipe what it left */
void rt_begin(const struct rt_slot *slot);             /* for the watchdog: time counts */
void rt_end(void);                                     /* and does not */

/* One of `turns` in a row without anything to do; true when it is time for a last look, then rt_nap. */
bool rt_idle(uint32_t turns);
void rt_nap(void);

/* rt_large.c */
void rt_large_free(struct rt_call *call);

/* Let another vCPU go on: `turn` counts up from 0 while the caller waits for it. */
void rt_pause(uint32_t turn);
bool rt_trylock(struct rt_lock *lock);
bool rt_once(uint32_t *state); /* 0: true, and 1 until the caller stores 2; 1: waits; 2: false */

/* Give the allocator its memory; `secret` makes its header tags unpredictable. */
void rt_heap_start(uint64_t start, uint64_t bytes, uint64_t secret);

/* 64 random bits from the CPU; false if it has none to give now. */
bool rt_random(uint64_t *value);

/* Ask the host for something: AL = reason, RDI = argument. */
static inline void rt_exit(enum cafe_exit reason, uint64_t argument) {
    __asm__ volatile("outb %%al, %1" : : "a"(reason), "N"(CAFE_PORT), "D"(argument) : "memory");
}

/* Written by `cafe build` into the read-only area: image offsets and lengths the linker does not tell. */
struct rt_layout {
    uint32_t ifunc_offset, ifunc_count; /* pairs of u32: place, resolver */
    uint32_t tls_offset, tls_file_bytes;
    uint32_t tls_bytes, tls_align;
};

/* Names the link script defines. */
extern char __image_base[], __image_end[], __eh_frame_hdr_start[];

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
