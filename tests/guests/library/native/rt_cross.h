/* rt_cross.h - the runtime's own, with every access held against the slot and the bulk area. */
#ifndef SHIM_RT_CROSS_H
#define SHIM_RT_CROSS_H

#define rt_read rt_read_unchecked
#define rt_write rt_write_unchecked
#include_next <rt_cross.h>
#undef rt_read
#undef rt_write

#ifdef __cplusplus
extern "C" {
#endif
struct shim_slot {
    const volatile uint8_t *start;
    uint64_t bytes;
};
extern __thread struct shim_slot shim_now;
bool shim_in_bulk(const volatile void *place, uint64_t n);
void shim_need(bool good, const char *what);
#ifdef __cplusplus
}
#endif

static inline bool shim_inside(const volatile void *place, uint64_t n) {
    const uint64_t offset = (uint64_t)((const volatile uint8_t *)place - shim_now.start);
    return (offset <= shim_now.bytes && n <= shim_now.bytes - offset) || shim_in_bulk(place, n);
}

static inline void rt_read(void *private_dst, const volatile void *shared_src, uint64_t n) {
    shim_need(shim_inside(shared_src, n), "read outside the slot");
    for (uint64_t i = 0; i < n; i++) {
        ((uint8_t *)private_dst)[i] = ((const volatile uint8_t *)shared_src)[i];
    }
}

static inline void rt_write(volatile void *shared_dst, const void *src, uint64_t n) {
    shim_need(shim_inside(shared_dst, n), "write outside the slot");
    for (uint64_t i = 0; i < n; i++) {
        ((volatile uint8_t *)shared_dst)[i] = ((const uint8_t *)src)[i];
    }
}

#endif
