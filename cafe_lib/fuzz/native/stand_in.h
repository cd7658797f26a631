/*
 * stand_in.h - the enclave's runtime as an ordinary process: what generated secret stubs need, with checks.
 *
 * Large buffers and callbacks are the runtime's own code (rt_large.c, rt_callback.c); here is what lies under
 * them. The region is mapped twice. Secret code gets the view in which everything but the words of a slot's
 * head is poisoned for AddressSanitizer, so that an access that does not go through rt_read and rt_write is
 * reported; whoever plays the guest uses the other.
 */
#ifndef STAND_IN_H
#define STAND_IN_H

#include "rt.h"

#define STAND_IN_SLOTS 2u
#define STAND_IN_EXIT 77 /* a check failed; the reason is on standard error */

/* Generated: the entries of the interface, in its order. */
extern rt_entry_function *const stand_in_entries[];
extern const uint32_t stand_in_entry_count;

struct stand_in {
    uint8_t *guest;   /* the region, as its guest sees it */
    uint8_t *enclave; /* the same memory, as secret code gets it */
    uint64_t slot_bytes, bulk_start, bulk_bytes, region_bytes;
    uint32_t slot;       /* the one that is played in */
    bool may_abort;      /* giving up is no finding */
    uint64_t callbacks;  /* made by secret code */
    uint64_t nested;     /* calls made from them */
    uint64_t fetched;    /* bytes */
    uint32_t aborted;    /* status with which the last call gave up, or 0 */
    uint64_t *entry;     /* where to say which function runs */
    void (*turn)(void);  /* the guest's chance to answer a callback; it counts */
    bool (*there)(void); /* the guest has not gone */
};
extern struct stand_in stand_in;

/* Map a region. Ends the process where that fails. */
void stand_in_start(uint64_t slot_bytes, uint64_t bulk_bytes);

/* The slot that is played in, as the guest sees it. */
struct cafe_slot *stand_in_slot(void);

/* Serve the request in the slot as the runtime does, and answer it. */
enum cafe_status stand_in_call(void);

/* The same bytes as the guest sees them. */
uint8_t *stand_in_alias(const volatile void *shared);

/* End the process, as a finding. */
__attribute__((noreturn, format(printf, 1, 2))) void stand_in_fail(const char *format, ...);

#endif
