/* rt_play.h - put before each of the runtime's files: they run as an ordinary program, and what they ask the
 * VMM for goes to the test, which plays the VMM, the guest and the other vCPUs in between. */
#ifndef RT_PLAY_H
#define RT_PLAY_H

#include "need.h"
#include "rt.h"

void play_exit(enum cafe_exit reason, uint64_t argument);
#define rt_exit play_exit

/* The clock, and claiming something, are where another party may come in between. */
uint64_t play_cycles(void);
void play_between(void);
#define __builtin_ia32_rdtsc play_cycles
#define __atomic_exchange_n(...) (play_between(), __atomic_exchange_n(__VA_ARGS__))

#ifdef PLAY_MEMORY /* memory may run out when the test says so */
void *play_calloc(size_t count, size_t bytes);
void *play_aligned_alloc(size_t align, size_t bytes);
#define calloc play_calloc
#define aligned_alloc play_aligned_alloc
#endif

#endif
