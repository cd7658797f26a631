/*
 * cafe_size.h - exact arithmetic of size expressions, the same code on both sides of the boundary.
 * A result that does not fit, or a negative value, sets `*bad`; what is returned then is never used.
 */
#ifndef CAFE_SIZE_H
#define CAFE_SIZE_H

#include <stdbool.h>
#include <stdint.h>

/* Both compilers must see the sizes and offsets that the interface was read with. */
#ifdef __cplusplus
#define CAFE_SAME(left, right) static_assert((left) == (right), "the interface was read with another layout")
#else
#define CAFE_SAME(left, right) _Static_assert((left) == (right), "the interface was read with another layout")
#endif

static inline uint64_t cafe_size_signed(bool *bad, int64_t value) {
    *bad |= value < 0;
    return (uint64_t)value;
}

static inline uint64_t cafe_size_add(bool *bad, uint64_t a, uint64_t b) {
    uint64_t sum = 0;
    *bad |= __builtin_add_overflow(a, b, &sum);
    return sum;
}

static inline uint64_t cafe_size_sub(bool *bad, uint64_t a, uint64_t b) {
    uint64_t difference = 0;
    *bad |= __builtin_sub_overflow(a, b, &difference);
    return difference;
}

static inline uint64_t cafe_size_mul(bool *bad, uint64_t a, uint64_t b) {
    uint64_t product = 0;
    *bad |= __builtin_mul_overflow(a, b, &product);
    return product;
}

static inline uint64_t cafe_size_div(bool *bad, uint64_t a, uint64_t b) {
    *bad |= b == 0;
    return b == 0 ? 0 : a / b;
}

static inline uint64_t cafe_size_mod(bool *bad, uint64_t a, uint64_t b) {
    *bad |= b == 0;
    return b == 0 ? 0 : a % b;
}

static inline uint64_t cafe_size_shl(bool *bad, uint64_t a, uint64_t b) {
    const uint64_t shifted = b < 64 ? a << b : 0;
    *bad |= b >= 64 || shifted >> b != a;
    return shifted;
}

static inline uint64_t cafe_size_shr(bool *bad, uint64_t a, uint64_t b) {
    *bad |= b >= 64;
    return b < 64 ? a >> b : 0;
}

#endif
