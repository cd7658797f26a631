/* hostile.h - words that a liar would try, and a loop that tries them while another thread changes them. */
#ifndef HOSTILE_H
#define HOSTILE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                                          \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

static inline uint64_t random_word(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Mostly plausible words: presence flags, small counts, and now and then an edge. */
static inline uint64_t hostile_word(uint64_t *state, const uint64_t *edges, uint64_t edge_count) {
    const uint64_t word = random_word(state);
    switch (word % 4) {
    case 0:
        return edges[(word >> 8) % edge_count];
    case 1:
        return (word >> 8) % 300;
    default:
        return (word >> 8) % 2;
    }
}

/* Sum of the bytes, to see that they keep still. */
static inline uint64_t sum(const void *data, uint64_t bytes) {
    uint64_t total = 0;
    for (uint64_t i = 0; data != NULL && i < bytes; i++) {
        total = total * 31 + ((const uint8_t *)data)[i];
    }
    return total;
}

/* Run `attempt` for so long, while `disturb`, unless NULL, runs in another thread all the time. */
struct hostile {
    void (*attempt)(uint64_t *state);
    void (*disturb)(uint64_t *state);
    bool stop; /* atomic */
    uint64_t attempts, disturbances;
};

static inline void *hostile_thread(void *argument) {
    struct hostile *hostile = (struct hostile *)argument;
    uint64_t state = 99;
    while (!__atomic_load_n(&hostile->stop, __ATOMIC_RELAXED)) {
        hostile->disturb(&state);
        hostile->disturbances++;
    }
    return NULL;
}

static inline void hostile_run(struct hostile *hostile, double seconds) {
    uint64_t state = 1234567;
    pthread_t thread;
    struct timespec start, now;
    CHECK(hostile->disturb == NULL || pthread_create(&thread, NULL, hostile_thread, hostile) == 0);
    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        for (int i = 0; i < 100; i++, hostile->attempts++) {
            hostile->attempt(&state);
        }
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((double)(now.tv_sec - start.tv_sec) + (double)(now.tv_nsec - start.tv_nsec) / 1e9 < seconds);
    __atomic_store_n(&hostile->stop, true, __ATOMIC_RELAXED);
    if (hostile->disturb != NULL) {
        (void)pthread_join(thread, NULL);
    }
}

#endif
