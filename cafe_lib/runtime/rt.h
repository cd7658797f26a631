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

/* One call, private to the enclave. */
struct rt_call {
    const volatile uint8_t *slot; /* the slot in shared memory: read each byte once, with rt_read */
    uint8_t *arena;               /* private staging area, slot_bytes long, 4096-aligned */
    uint64_t slot_bytes;
    struct cafe_slot *shared; /* the same slot, for results, with rt_write */
    uint64_t used;            /* end of what the stub put in the arena; the runtime wipes that much */
};

/* End the enclave; what waits for a call gets `status`. */
__attribute__((noreturn)) void rt_abort(enum cafe_status status);

/* Make `function` (an assembler name) secret function number `i`, entered through cafe_entry_<i>, which
 * must be an external `enum cafe_status cafe_entry_<i>(struct rt_call *)`. */
#define CAFE_EXPORT(i, function)                                                                             \
    __asm__(".pushsection .cafe.exports." #i ",\"a\"\n .long cafe_entry_" #i " - .\n .popsection\n"          \
            ".pushsection .cafe.functions." #i ",\"a\"\n .long " #function " - .\n .popsection\n")

/* ---- between the runtime's own files */

typedef enum cafe_status rt_entry_function(struct rt_call *call);

/* Call with every general register but the stack pointer in a defined state; flags are sound afterwards. */
enum cafe_status rt_enter(rt_entry_function *entry, struct rt_call *call);

/* Put x87, MXCSR and vector registers into the state of a new thread; `wide`: vectors have 256 bits. */
void rt_fresh(uint64_t wide);

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
