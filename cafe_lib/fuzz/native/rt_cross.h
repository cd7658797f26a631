/* rt_cross.h - the runtime's own, but every access to shared memory is checked (stand_in.c). It stands before
 * the runtime's on the include path. */
#ifndef STAND_IN_RT_CROSS_H
#define STAND_IN_RT_CROSS_H

#define rt_read rt_read_unchecked
#define rt_write rt_write_unchecked
#include_next <rt_cross.h>
#undef rt_read
#undef rt_write

#ifdef __cplusplus
extern "C" {
#endif
/* Ends the run when a byte lies outside the call's slot and the bulk area, or is fetched a second time. */
void stand_in_read(void *private_dst, const volatile void *shared_src, uint64_t n);
void stand_in_write(volatile void *shared_dst, const void *src, uint64_t n);
#ifdef __cplusplus
}
#endif

static inline void rt_read(void *private_dst, const volatile void *shared_src, uint64_t n) {
    stand_in_read(private_dst, shared_src, n);
}

static inline void rt_write(volatile void *shared_dst, const void *src, uint64_t n) {
    stand_in_write(shared_dst, src, n);
}

#endif
