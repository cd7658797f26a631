/* rt_cross.h - how a generated stub crosses between shared and private memory. */
#ifndef RT_CROSS_H
#define RT_CROSS_H

#include <stdbool.h>
#include <stdint.h>

#define RT_SMALL_COPY 256u

/* What is moved at once; at any address, of any type. */
typedef uint8_t rt_block __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint64_t rt_eight __attribute__((aligned(1), may_alias));
typedef uint32_t rt_four __attribute__((aligned(1), may_alias));
typedef uint16_t rt_two __attribute__((aligned(1), may_alias));

/* Move `bytes`, as a `type`, if that many are left. A volatile access happens exactly once, so no shared
 * byte is fetched a second time; with a constant size all of it becomes a few moves. */
#define RT_MOVE_IN(step, type)                                                                               \
    step(n >= sizeof(type)) {                                                                                \
        const type moved = *(const volatile type *)src;                                                      \
        __builtin_memcpy(dst, &moved, sizeof moved);                                                         \
        src += sizeof moved;                                                                                 \
        dst += sizeof moved;                                                                                 \
        n -= sizeof moved;                                                                                   \
    }
#define RT_MOVE_OUT(step, type)                                                                              \
    step(n >= sizeof(type)) {                                                                                \
        type moved;                                                                                          \
        __builtin_memcpy(&moved, src, sizeof moved);                                                         \
        *(volatile type *)dst = moved;                                                                       \
        src += sizeof moved;                                                                                 \
        dst += sizeof moved;                                                                                 \
        n -= sizeof moved;                                                                                   \
    }
#define RT_MOVE(way)                                                                                         \
    if (__builtin_constant_p(n)) {                                                                           \
        _Pragma("GCC unroll 16") way(while, rt_block);                                                       \
    } else {                                                                                                 \
        _Pragma("GCC unroll 1") way(while, rt_block);                                                        \
    }                                                                                                        \
    way(if, rt_eight) way(if, rt_four) way(if, rt_two) way(if, uint8_t)

/* `cld`: backwards, a copy after secret code that left DF set would be of private memory beside the buffer.
 */
static inline void rt_copy_large(volatile void *dst, const volatile void *src, uint64_t n) {
    __asm__ volatile("cld\n\trep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory", "cc");
}

/* Copy from shared memory, fetching every byte exactly once. */
static inline void rt_read(void *private_dst, const volatile void *shared_src, uint64_t n) {
    uint8_t *dst = (uint8_t *)private_dst;
    const volatile uint8_t *src = (const volatile uint8_t *)shared_src;
    if (n > RT_SMALL_COPY) {
        rt_copy_large(dst, src, n);
        return;
    }
    RT_MOVE(RT_MOVE_IN)
}

/* Copy to shared memory. */
static inline void rt_write(volatile void *shared_dst, const void *private_src, uint64_t n) {
    volatile uint8_t *dst = (volatile uint8_t *)shared_dst;
    const uint8_t *src = (const uint8_t *)private_src;
    if (n > RT_SMALL_COPY) {
        rt_copy_large(dst, src, n);
        return;
    }
    RT_MOVE(RT_MOVE_OUT)
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
