/* Rust inside an enclave: heap, formatting, panics, random bytes, a callback, C beside it. */
#ifndef KIT_H
#define KIT_H

#include <cafe.h>
#include <stdbool.h>
#include <stdint.h>

enum kit_shape { KIT_SQUARE = 1, KIT_CIRCLE = 2 };

struct kit_item {
    enum kit_shape shape;
    double size;
    char name[8];
};

CAFE_CALLBACK CAFE_ON_ERROR(-1) int32_t kit_price(uint32_t item);

CAFE_SECRET int32_t kit_count(const uint32_t *values CAFE_IN(n), uint32_t n, char *text CAFE_OUT(size),
                              uint32_t size);
CAFE_SECRET CAFE_ON_ERROR(-1) int32_t kit_at(uint32_t index);
CAFE_SECRET CAFE_ON_ERROR(-1) int32_t kit_too_much(uint64_t bytes);
CAFE_SECRET double kit_area(const struct kit_item *items CAFE_IN(n), uint32_t n,
                            struct kit_item *largest CAFE_OUT(1));
CAFE_SECRET struct kit_item kit_scaled(struct kit_item item, double by);
CAFE_SECRET bool kit_random(uint8_t *bytes CAFE_OUT(n), uint32_t n);
CAFE_SECRET int64_t kit_from_c(int64_t value);
CAFE_SECRET CAFE_ON_ERROR(-1) int32_t kit_bill(uint32_t first, uint32_t last);
CAFE_SECRET uint32_t kit_aligned(void);

#endif
