/* rt_cross.h - how a generated stub crosses between shared and private memory. */
#ifndef RT_CROSS_H
#define RT_CROSS_H

#include <stdbool.h>
#include <stdint.h>

#define RT_SMALL_COPY 256u

/* `rep movsb` and words moved by hand rather than memcpy: the compiler must not fetch a shared byte twice.
 * `cld`: backwards, a copy after secret code that left DF set would be of private memory beside the buffer.
 */
static inline void rt_copy(volatile uint8_t *dst, const volatile uint8_t *src, uint64_t n) {
    if (n > RT_SMALL_COPY) {
        __asm__ volatile("cld\n\trep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory", "cc");
        return;
    }
    for (; n >= 8; n -= 8, dst += 8, src += 8) {
        uint64_t word;
        __asm__ volatile("movq (%1), %0\n\tmovq %0, (%2)" : "=&r"(word) : "r"(src), "r"(dst) : "memory");
    }
    for (; n; n--)
        *dst++ = *src++;
}

/* Copy from shared memory, fetching every byte exactly once. */
static inline void rt_read(void *private_dst, const volatile void *shared_src, uint64_t n) {
    rt_copy((volatile uint8_t *)private_dst, (const volatile uint8_t *)shared_src, n);
}

/* Copy to shared memory. */
static inline void rt_write(volatile void *shared_dst, const void *src, uint64_t n) {
    rt_copy((volatile uint8_t *)shared_dst, (const volatile uint8_t *)src, n);
}

/* Take the next area of `count` elements from *offset on: *start is where it begins, *offset becomes its
 * end. `align` is a power of two. False, and nothing changed, if it does not fit into the slot. */
static inline bool rt_area(uint64_t *offset, uint64_t count, uint64_t element_bytes, uint64_t align,
                           uint64_t slot_bytes, uint64_t *start) {
    uint64_t bytes, first, end;
    if (__builtin_mul_overflow(count, element_bytes, &bytes) ||
        __builtin_add_overflow(*offset, align - 1, &first))
        return false;
    first &= ~(align - 1);
    if (__builtin_add_overflow(first, bytes, &end) || end > slot_bytes)
        return false;
    *start = first;
    *offset = end;
    return true;
}

#endif
