/* cafe_padding.h - clears the bits of a type that hold no value, before it leaves the enclave or is used in
 * it. */
#ifndef CAFE_PADDING_H
#define CAFE_PADDING_H

#include <stdint.h>

/* Keep only the bits of `mask` in `count` bytes. */
static inline void cafe_keep(uint8_t *at, uint32_t count, uint8_t mask) {
    if (mask == 0) {
        __builtin_memset(at, 0, count);
        return;
    }
    for (uint32_t byte = 0; byte < count; byte++) {
        at[byte] = (uint8_t)(at[byte] & mask);
    }
}

/* `count` bytes from `offset` in each element keep only the bits of `mask`. */
struct cafe_hole {
    uint32_t offset, count;
    uint8_t mask;
};

static inline void cafe_clear_padding(uint8_t *at, uint64_t elements, uint64_t element_bytes,
                                      const struct cafe_hole *holes, uint32_t hole_count) {
    for (uint64_t element = 0; element < elements; element++, at += element_bytes) {
        for (const struct cafe_hole *hole = holes; hole < holes + hole_count; hole++) {
            cafe_keep(at + hole->offset, hole->count, hole->mask);
        }
    }
}

#endif
