/* cafe_channel_check.h - is a region what its header says? Pure, so that it can be fuzzed and proven. */
#ifndef CAFE_CHANNEL_CHECK_H
#define CAFE_CHANNEL_CHECK_H

#include "cafe_abi.h"

#include <stddef.h>

/* Where the bulk area begins, or would: the end of the slots, rounded up if there is one. The header's counts
 * are within bounds. */
static inline uint64_t cafe_channel_bulk(const struct cafe_channel_header *header) {
    const uint64_t end = CAFE_CHANNEL_HEADER_BYTES + header->slot_count * header->slot_bytes;
    return header->bulk_bytes == 0 ? end : (end + CAFE_BULK_ALIGN - 1) & ~(uint64_t)(CAFE_BULK_ALIGN - 1);
}

/* NULL if every slot and the bulk area lie within `region_bytes`, the file's size; else what is wrong.
 * `header` is a private copy. */
static inline const char *cafe_channel_check(const struct cafe_channel_header *header,
                                             uint64_t region_bytes) {
    if (header->magic != CAFE_CHANNEL_MAGIC || header->abi_version != CAFE_ABI_VERSION) {
        return "not a channel of this version";
    }
    if (header->slot_count < 1 || header->slot_count > CAFE_MAX_SLOTS) {
        return "the number of slots";
    }
    if (header->slot_bytes < CAFE_MIN_SLOT_BYTES || header->slot_bytes > CAFE_MAX_SLOT_BYTES ||
        header->slot_bytes % CAFE_PAGE != 0) {
        return "the size of a slot";
    }
    if (header->bulk_bytes > CAFE_MAX_BULK_BYTES || header->bulk_bytes % CAFE_BULK_ALIGN != 0) {
        return "the size of the bulk area";
    }
    if (header->region_bytes != region_bytes ||
        region_bytes != cafe_channel_bulk(header) + header->bulk_bytes) {
        return "the size of the region";
    }
    return NULL;
}

#endif
