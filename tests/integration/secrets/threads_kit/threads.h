/* Calls that run at the same time in one enclave. */
#ifndef THREADS_H
#define THREADS_H

#include <cafe.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Two calls that wait for each other: only both together return 0. */
CAFE_SECRET int32_t threads_meet(uint32_t parties);

/* Adds 1 to a number that is not atomic, `rounds` times, under one of the locks; returns the number. */
CAFE_SECRET uint64_t threads_count(uint32_t lock, uint32_t rounds);

/* Adds to a thread-local number and tells which thread it was by its address. */
CAFE_SECRET uint64_t threads_local(uint64_t add, uint64_t *place CAFE_OUT(1));

/* malloc and free from several threads; 0, or how many blocks were not as left. */
CAFE_SECRET uint32_t threads_heap(uint32_t rounds, uint32_t seed);

/* How often what must happen once has happened. */
CAFE_SECRET uint32_t threads_once(void);

/* The most calls of this function that were ever in it at the same time. */
CAFE_SECRET CAFE_SERIAL uint32_t threads_serial(uint32_t turns);
CAFE_SECRET uint32_t threads_parallel(uint32_t turns);

/* Waits for a condition that the other signals. */
CAFE_SECRET uint32_t threads_take(void);
CAFE_SECRET void threads_put(uint32_t value);

/* Never returns. */
CAFE_SECRET void threads_spin(void);
CAFE_SECRET uint32_t threads_echo(uint32_t value);

#ifdef __cplusplus
}
#endif

#endif
