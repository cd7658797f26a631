/* Locks between vCPUs. There is no kernel to sleep in: whoever waits lets its host thread yield. The
 * structures of musl and glibc are both zero at first where these keep their words, and every lock may be
 * taken again by its owner, so that plain and recursive mutexes need not be told apart. */
#include "rt.h"

#include <errno.h>
#include <pthread.h>

#define TURNS_TO_YIELD 256u

void rt_pause(uint32_t turn) {
    if (turn % TURNS_TO_YIELD == TURNS_TO_YIELD - 1)
        rt_exit(CAFE_EXIT_YIELD, 0);
    __builtin_ia32_pause();
}

bool rt_trylock(struct rt_lock *lock) {
    uint32_t owner = 0;
    if (!__atomic_compare_exchange_n(&lock->owner, &owner, rt_cpu.number + 1, false, __ATOMIC_ACQUIRE,
                                     __ATOMIC_RELAXED) &&
        owner != rt_cpu.number + 1)
        return false;
    lock->depth++;
    return true;
}

void rt_lock(struct rt_lock *lock) {
    for (uint32_t turn = 0; !rt_trylock(lock); turn++)
        rt_pause(turn);
}

void rt_unlock(struct rt_lock *lock) {
    if (--lock->depth == 0)
        __atomic_store_n(&lock->owner, 0, __ATOMIC_RELEASE);
}

/* Bytes 8 to 15 of a mutex or rwlock; bytes 0 to 3 of a condition count its signals. */
static struct rt_lock *lock_of(void *object) {
    return (struct rt_lock *)((char *)object + 8);
}

#define ALIAS(name) __attribute__((alias(#name), visibility("hidden")))
#define LOCKS(kind, take, try, release)                                                                      \
    int take(kind *object) {                                                                                 \
        rt_lock(lock_of(object));                                                                            \
        return 0;                                                                                            \
    }                                                                                                        \
    int try(kind *object) {                                                                                  \
        return rt_trylock(lock_of(object)) ? 0 : EBUSY;                                                      \
    }                                                                                                        \
    int release(kind *object) {                                                                              \
        rt_unlock(lock_of(object));                                                                          \
        return 0;                                                                                            \
    }
LOCKS(pthread_mutex_t, pthread_mutex_lock, pthread_mutex_trylock, pthread_mutex_unlock)
LOCKS(pthread_rwlock_t, pthread_rwlock_wrlock, pthread_rwlock_trywrlock, pthread_rwlock_unlock)
int pthread_rwlock_rdlock(pthread_rwlock_t *) __attribute__((alias("pthread_rwlock_wrlock")));
int pthread_rwlock_tryrdlock(pthread_rwlock_t *) __attribute__((alias("pthread_rwlock_trywrlock")));
/* musl's own callers */
int __pthread_mutex_lock(pthread_mutex_t *) ALIAS(pthread_mutex_lock);
int __pthread_mutex_trylock(pthread_mutex_t *) ALIAS(pthread_mutex_trylock);
int __pthread_mutex_unlock(pthread_mutex_t *) ALIAS(pthread_mutex_unlock);

int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex) {
    const uint32_t seen = __atomic_load_n((uint32_t *)condition, __ATOMIC_ACQUIRE);
    rt_unlock(lock_of(mutex));
    for (uint32_t turn = 0; __atomic_load_n((uint32_t *)condition, __ATOMIC_ACQUIRE) == seen; turn++)
        rt_pause(turn);
    rt_lock(lock_of(mutex));
    return 0;
}

int pthread_cond_broadcast(pthread_cond_t *condition) {
    (void)__atomic_add_fetch((uint32_t *)condition, 1, __ATOMIC_ACQ_REL);
    return 0;
}
int pthread_cond_signal(pthread_cond_t *) __attribute__((alias("pthread_cond_broadcast")));

bool rt_once(uint32_t *state) {
    uint32_t seen = 0;
    for (uint32_t turn = 0;
         !__atomic_compare_exchange_n(state, &seen, 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
         turn++, seen = 0) {
        if (seen == 2)
            return false;
        rt_pause(turn);
    }
    return true;
}

int pthread_once(pthread_once_t *once, void (*initialise)(void)) {
    if (rt_once((uint32_t *)once)) {
        initialise();
        __atomic_store_n((uint32_t *)once, 2, __ATOMIC_RELEASE);
    }
    return 0;
}
int __pthread_once(pthread_once_t *, void (*)(void)) ALIAS(pthread_once);
