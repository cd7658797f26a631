#include "threads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

uint64_t count_cxx(uint32_t lock, uint32_t rounds, uint64_t *counter);
uint32_t once_cxx(void);

static atomic_uint arrived, inside[2], most[2];
static uint64_t counters[8];
static pthread_mutex_t plain = PTHREAD_MUTEX_INITIALIZER, items = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t both = PTHREAD_RWLOCK_INITIALIZER;
static pthread_cond_t filled = PTHREAD_COND_INITIALIZER;
static uint32_t item;
static _Thread_local uint64_t own = 100;

int32_t threads_meet(uint32_t parties) {
    atomic_fetch_add(&arrived, 1);
    while (atomic_load(&arrived) < parties)
        continue;
    return 0;
}

static uint64_t count_plain(uint32_t rounds) {
    for (uint32_t i = 0; i < rounds; i++) {
        pthread_mutex_lock(&plain);
        counters[0] = counters[0] + 1;
        pthread_mutex_unlock(&plain);
    }
    return counters[0];
}

static uint64_t count_recursive(uint32_t rounds) {
    static pthread_mutex_t again;
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)once;
    for (uint32_t i = 0; i < rounds; i++) {
        pthread_mutex_lock(&again);
        while (pthread_mutex_trylock(&again) != 0)
            continue;
        counters[1] = counters[1] + 1;
        pthread_mutex_unlock(&again);
        pthread_mutex_unlock(&again);
    }
    return counters[1];
}

static uint64_t count_shared(uint32_t rounds) {
    for (uint32_t i = 0; i < rounds; i++) {
        pthread_rwlock_rdlock(&both);
        pthread_rwlock_unlock(&both);
        pthread_rwlock_wrlock(&both);
        counters[2] = counters[2] + 1;
        pthread_rwlock_unlock(&both);
    }
    return counters[2];
}

uint64_t threads_count(uint32_t lock, uint32_t rounds) {
    switch (lock) {
    case 0:
        return count_plain(rounds);
    case 1:
        return count_recursive(rounds);
    case 2:
        return count_shared(rounds);
    default:
        return count_cxx(lock, rounds, &counters[lock % 8]);
    }
}

uint64_t threads_local(uint64_t add, uint64_t *place) {
    own += add;
    *place = (uint64_t)(uintptr_t)&own;
    return own;
}

uint32_t threads_heap(uint32_t rounds, uint32_t seed) {
    enum { HELD = 16 };
    uint8_t *held[HELD] = {0};
    size_t sizes[HELD] = {0};
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < rounds; i++) {
        seed = seed * 1664525 + 1013904223;
        const uint32_t at = seed >> 28;
        for (size_t byte = 0; byte < sizes[at]; byte++)
            wrong += held[at][byte] != (uint8_t)(at + sizes[at]);
        free(held[at]);
        sizes[at] = (seed >> 8) % 2000;
        held[at] = malloc(sizes[at]);
        if (held[at] == NULL)
            return UINT32_MAX;
        memset(held[at], (int)(uint8_t)(at + sizes[at]), sizes[at]);
    }
    for (uint32_t at = 0; at < HELD; at++)
        free(held[at]);
    return wrong;
}

static atomic_uint made;

static void make(void) {
    for (volatile int i = 0; i < 1000; i++)
        continue;
    atomic_fetch_add(&made, 1);
}

uint32_t threads_once(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make);
    return atomic_load(&made) * 100 + once_cxx();
}

static uint32_t stay(uint32_t which, uint32_t turns) {
    const uint32_t now = atomic_fetch_add(&inside[which], 1) + 1;
    unsigned seen = atomic_load(&most[which]);
    while (now > seen && !atomic_compare_exchange_weak(&most[which], &seen, now))
        continue;
    for (volatile uint32_t i = 0; i < turns; i++)
        continue;
    atomic_fetch_sub(&inside[which], 1);
    return atomic_load(&most[which]);
}

uint32_t threads_serial(uint32_t turns) {
    return stay(0, turns);
}

uint32_t threads_parallel(uint32_t turns) {
    return stay(1, turns);
}

uint32_t threads_take(void) {
    pthread_mutex_lock(&items);
    while (item == 0)
        pthread_cond_wait(&filled, &items);
    const uint32_t taken = item;
    item = 0;
    pthread_mutex_unlock(&items);
    return taken;
}

void threads_put(uint32_t value) {
    pthread_mutex_lock(&items);
    item = value;
    pthread_cond_signal(&filled);
    pthread_mutex_unlock(&items);
}

void threads_spin(void) {
    for (volatile int on = 1; on;)
        continue;
}

uint32_t threads_echo(uint32_t value) {
    return value;
}
