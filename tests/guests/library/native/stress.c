/* stress.c - many threads in a hurry: every one goes on, and nobody gets another's answer. */
#include "hand.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOST_THREADS 128

struct worker {
    pthread_t thread;
    uint64_t calls; /* atomic */
    uint64_t bad;
    uint64_t number;
    uint64_t pad[4];
};

static bool stop; /* atomic */
static bool mixed;

uint64_t hand_asked(uint64_t value) {
    return value + 1;
}

/* Now and then a call that sleeps, one with a large buffer, one with callbacks, and a pause. */
static bool something_else(uint64_t i, uint64_t number) {
    static const struct timespec moment = {0, 100000};
    uint8_t data[3000];
    switch ((i + number) % 50) {
    case 7:
        return hand_sleep(1) == 0;
    case 11:
        memset(data, (int)number, sizeof data);
        return hand_sum(data, sizeof data) == (number & 255) * sizeof data;
    case 23:
        return hand_ask(number) == 2 * number + 3;
    case 31:
        return nanosleep(&moment, NULL) == 0;
    default:
        return true;
    }
}

static void *work(void *argument) {
    struct worker *me = argument;
    for (uint64_t i = 0; !__atomic_load_n(&stop, __ATOMIC_RELAXED); i++) {
        me->bad += hand_add(me->number << 32, i) != (me->number << 32 | i);
        me->bad += mixed && !something_else(i, me->number);
        (void)__atomic_add_fetch(&me->calls, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

/* Every thread has made `least` calls more than at `before`. */
static bool all_went_on(struct worker *workers, int count, const uint64_t *before, uint64_t least) {
    for (int i = 0; i < count; i++) {
        if (__atomic_load_n(&workers[i].calls, __ATOMIC_RELAXED) < before[i] + least) {
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv) {
    static struct worker workers[MOST_THREADS];
    const int count = argc > 1 ? atoi(argv[1]) : 2, rounds = argc > 2 ? atoi(argv[2]) : 3;
    const struct timespec moment = {0, 5000000};
    uint64_t bad = 0, before[MOST_THREADS];
    mixed = argc > 3 && strcmp(argv[3], "mixed") == 0;
    for (int i = 0; i < count; i++) {
        workers[i].number = (uint64_t)i;
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) {
            return 2;
        }
    }
    for (int round = 0; round < rounds; round++) { /* whoever starves keeps this from ending */
        for (int i = 0; i < count; i++) {
            before[i] = __atomic_load_n(&workers[i].calls, __ATOMIC_RELAXED);
        }
        while (!all_went_on(workers, count, before, 20)) {
            (void)nanosleep(&moment, NULL);
        }
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    for (int i = 0; i < count; i++) {
        (void)pthread_join(workers[i].thread, NULL);
        bad += workers[i].bad;
    }
    printf("%d threads went on, %lu bad\n", count, (unsigned long)bad);
    return bad != 0;
}
