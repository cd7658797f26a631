/* Buffers that no slot has room for: they lie in the region's bulk area, their private copies in the heap. */
#include "rt.h"

#include <stdlib.h>
#include <string.h>

struct rt_large {
    struct rt_large *next;
    uint64_t bytes;
    uint8_t data[] __attribute__((aligned(CAFE_CACHE_LINE)));
};

enum cafe_status rt_large(struct rt_call *call, struct rt_buffer *buffer, uint64_t word, uint64_t bytes) {
    const struct cafe_boot *boot = rt_cpu.boot;
    const uint64_t slots_end = CAFE_CHANNEL_HEADER_BYTES + boot->slot_count * boot->slot_bytes;
    const uint64_t start = (slots_end + CAFE_BULK_ALIGN - 1) & ~(uint64_t)(CAFE_BULK_ALIGN - 1);
    if (word % CAFE_CACHE_LINE || word < start || word - start > boot->bulk_bytes ||
        bytes > boot->bulk_bytes - (word - start))
        return CAFE_E_MALFORMED;
    const uint64_t whole =
        (sizeof(struct rt_large) + bytes + CAFE_CACHE_LINE - 1) & -(uint64_t)CAFE_CACHE_LINE;
    struct rt_large *large = aligned_alloc(CAFE_CACHE_LINE, whole);
    if (!large)
        return CAFE_E_LIMIT;
    large->next = call->large;
    large->bytes = bytes;
    call->large = large;
    buffer->at = large->data;
    buffer->shared = (volatile uint8_t *)call->own->start + word;
    buffer->bytes = bytes;
    return CAFE_OK;
}

void rt_large_free(struct rt_call *call) {
    while (call->large) {
        struct rt_large *large = call->large;
        call->large = large->next;
        memset(large, 0, sizeof *large + large->bytes);
        __asm__ volatile("" : : "r"(large) : "memory"); /* the wipe is not dead code */
        free(large);
    }
}
