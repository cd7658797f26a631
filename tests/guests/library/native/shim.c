/* shim.c - rt.h for an ordinary process: the same promises, and an abort where a stub breaks one. */
#include "shim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static __thread struct {
    const volatile uint8_t *start;
    uint64_t bytes;
} now;

static void need(bool good, const char *what) {
    if (!good) {
        fprintf(stderr, "shim: %s\n", what);
        abort();
    }
}

static bool inside(const volatile void *place, uint64_t n) {
    const uint64_t offset = (uint64_t)((const volatile uint8_t *)place - now.start);
    return offset <= now.bytes && n <= now.bytes - offset;
}

void rt_read(void *private_dst, const volatile void *shared_src, uint64_t n) {
    need(inside(shared_src, n), "read outside the slot");
    for (uint64_t i = 0; i < n; i++) {
        ((uint8_t *)private_dst)[i] = ((const volatile uint8_t *)shared_src)[i];
    }
}

void rt_write(volatile void *shared_dst, const void *src, uint64_t n) {
    need(inside(shared_dst, n), "write outside the slot");
    for (uint64_t i = 0; i < n; i++) {
        ((volatile uint8_t *)shared_dst)[i] = ((const uint8_t *)src)[i];
    }
}

void rt_abort(enum cafe_status status) {
    fprintf(stderr, "shim: rt_abort(%d)\n", (int)status);
    abort();
}

enum cafe_status shim_call(struct cafe_slot *slot, uint64_t slot_bytes, uint32_t entry) {
    if (entry >= shim_entry_count) {
        return CAFE_E_ENTRY;
    }
    struct rt_call call = {.slot = (const volatile uint8_t *)slot, .slot_bytes = slot_bytes, .shared = slot};
    call.arena = malloc(slot_bytes);
    need(call.arena != NULL, "out of memory");
    memset(call.arena, 0xa5, slot_bytes);
    now.start = call.slot;
    now.bytes = slot_bytes;
    const enum cafe_status status = shim_entries[entry](&call);
    need(call.used <= slot_bytes, "more used than there is");
    free(call.arena);
    return status;
}
