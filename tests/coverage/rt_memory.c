/* rt_memory.c - the allocator's checks and the locks, which secret code itself may use wrongly. The functions
 * that libc has as well are called own_... here. It includes the allocator's file, to start it anew. */
#include "play.h"

#include "../../cafe_lib/runtime/rt_heap.c"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <string.h>
#include <unistd.h>

#define HEAP_BYTES (1u << 20)
#define SMALL 100u

int own_pthread_mutex_lock(pthread_mutex_t *mutex);
int own_pthread_mutex_trylock(pthread_mutex_t *mutex);
int own_pthread_mutex_unlock(pthread_mutex_t *mutex);
int own_pthread_rwlock_wrlock(pthread_rwlock_t *lock);
int own_pthread_rwlock_trywrlock(pthread_rwlock_t *lock);
int own_pthread_rwlock_unlock(pthread_rwlock_t *lock);
int own_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);
int own_pthread_cond_broadcast(pthread_cond_t *condition);
int own_pthread_once(pthread_once_t *once, void (*initialise)(void));

__thread struct rt_cpu rt_cpu;
static uint8_t memory[HEAP_BYTES] __attribute__((aligned(4096)));
static jmp_buf aborted;
static uint32_t yields;

void play_exit(enum cafe_exit reason, uint64_t argument) {
    NEED(reason == CAFE_EXIT_YIELD && argument == 0);
    (void)__atomic_add_fetch(&yields, 1, __ATOMIC_SEQ_CST);
    (void)usleep(100);
}

void rt_abort(enum cafe_status status) {
    longjmp(aborted, (int)status);
}

static void start(void) {
    memset(memory, 0, HEAP_BYTES);
    memset(&heap, 0, sizeof heap);
    rt_heap_start((uintptr_t)memory, HEAP_BYTES, 0x1234567890abcdef);
}

static bool refuses(void *pointer) {
    const int status = setjmp(aborted);
    if (status == 0)
        own_free(pointer);
    return status == CAFE_E_ABORT;
}

/* ---- the heap; its lock stays taken when it refuses, and nothing but the end comes after that */

static void what_cannot_be(void) {
    const size_t much[] = {HEAP_BYTES, (size_t)-1, (size_t)-1 - 15, 1ull << 32, 1ull << 63};
    volatile size_t half = 1ull << 32; /* a compiler would say so itself */
    void *at = NULL;
    for (size_t i = 0; i < sizeof much / sizeof much[0]; i++) {
        errno = 0;
        NEED(!own_malloc(much[i]) && errno == ENOMEM && !own_calloc(much[i], 1) &&
             !own_realloc(NULL, much[i]));
        NEED(!own_aligned_alloc(64, much[i]) && own_posix_memalign(&at, 64, much[i]) == ENOMEM && !at);
    }
    NEED(!own_calloc(half, half) && !own_aligned_alloc(1ull << 40, 1));
    NEED(!own_aligned_alloc(0, 8) && errno == EINVAL && !own_aligned_alloc(24, 8));
    NEED(own_posix_memalign(&at, 4, 8) == EINVAL && own_posix_memalign(&at, 24, 8) == EINVAL);
}

static void what_can(void) {
    void *at = NULL;
    own_free(NULL);
    NEED(own_malloc_usable_size(NULL) == 0);
    uint8_t *block = own_malloc(SMALL);
    NEED(block && own_malloc_usable_size(block) >= SMALL && own_realloc(block, SMALL) == block);
    memset(block, 5, SMALL);
    uint8_t *larger = own_realloc(block, 5000);
    NEED(larger && larger[SMALL - 1] == 5 && !own_realloc(larger, HEAP_BYTES / 2 * 2) && larger[0] == 5);
    own_free(larger);
    uint8_t *zeros = own_calloc(10, 10);
    NEED(zeros && zeros[0] == 0 && zeros[99] == 0);
    own_free(zeros);
    NEED(own_posix_memalign(&at, 8, 1) == 0 && (uintptr_t)at % 8 == 0);
    own_free(at);
    NEED(own_aligned_alloc(1, 1) && (at = own_malloc(0)));
    own_free(at);
}

/* Of every size and alignment, in every order; in the end all of it is one block again. */
static void blocks(void) {
    enum { HELD = 64 };
    void *held[HELD] = {0};
    uint64_t state = 1;
    for (uint32_t round = 0; round < 20000; round++) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        const uint32_t i = (uint32_t)(state >> 58);
        const size_t bytes = (state >> 40) % (state >> 36 & 15 ? 600 : 60000);
        own_free(held[i]);
        held[i] = state >> 35 & 1 ? own_malloc(bytes) : own_aligned_alloc(16u << (state >> 32 & 7), bytes);
        if (held[i])
            memset(held[i], (int)i, bytes);
    }
    for (uint32_t i = 0; i < HELD; i++)
        own_free(held[i]);
    void *all = own_malloc(HEAP_BYTES - 16);
    NEED(all && !own_malloc(1));
    own_free(all);
    for (uint32_t shift = 5; shift < 40; shift++) /* whatever bin it would be in */
        NEED((find(7ull << shift) == NULL) == (7ull << shift > HEAP_BYTES));
}

static void wrong_frees(void) {
    for (uint32_t which = 0; which < 8; which++) {
        start();
        uint8_t *a = own_malloc(SMALL), *b = own_malloc(SMALL), *c = own_malloc(SMALL);
        NEED(a && b && c);
        own_free(b);
        if (which == 1)
            own_free(a);
        uint8_t *const wrong[] = {
            b, b, a + 16, a + 8, memory, memory + HEAP_BYTES, memory - 4096, (uint8_t *)16};
        NEED(refuses(wrong[which]));
    }
    start();
    uint8_t *block = own_malloc(SMALL);
    if (setjmp(aborted) == 0) {
        void *volatile moved = own_realloc(block + 16, SMALL);
        NEED(!moved && false);
    }
    if (setjmp(aborted) == 0) {
        (void)own_malloc_usable_size(block + 16);
        NEED(false);
    }
}

/* ---- locks */

static pthread_mutex_t mutex;
static pthread_rwlock_t rwlock;
static pthread_cond_t condition;
static pthread_once_t once;
static uint32_t counter, made, go;

static void make(void) {
    (void)usleep(20000);
    made++;
}

static void *vcpu(void *number) {
    rt_cpu.number = (uint32_t)(uintptr_t)number;
    NEED(own_pthread_mutex_trylock(&mutex) == EBUSY && own_pthread_rwlock_trywrlock(&rwlock) == EBUSY);
    __atomic_store_n(&go, 1, __ATOMIC_SEQ_CST);
    for (uint32_t i = 0; i < 2000; i++) {
        own_pthread_mutex_lock(&mutex);
        counter++;
        own_pthread_mutex_unlock(&mutex);
    }
    own_pthread_once(&once, make);
    NEED(made == 1);
    own_pthread_mutex_lock(&mutex);
    counter = 0;
    own_pthread_cond_broadcast(&condition);
    own_pthread_mutex_unlock(&mutex);
    return NULL;
}

static void locks(void) {
    pthread_t thread;
    own_pthread_mutex_lock(&mutex);
    NEED(own_pthread_mutex_trylock(&mutex) == 0); /* its owner may take it again */
    own_pthread_mutex_unlock(&mutex);
    own_pthread_rwlock_wrlock(&rwlock);
    NEED(own_pthread_rwlock_trywrlock(&rwlock) == 0);
    own_pthread_rwlock_unlock(&rwlock);
    NEED(pthread_create(&thread, NULL, vcpu, (void *)(uintptr_t)(rt_cpu.number + 1)) == 0);
    while (!__atomic_load_n(&go, __ATOMIC_SEQ_CST))
        (void)usleep(1000);
    (void)usleep(30000);
    NEED(counter == 0 && __atomic_load_n(&yields, __ATOMIC_SEQ_CST) > 0);
    own_pthread_mutex_unlock(&mutex);
    own_pthread_rwlock_unlock(&rwlock);
    own_pthread_once(&once, make);
    own_pthread_mutex_lock(&mutex);
    while (counter != 0 || made != 1)
        own_pthread_cond_wait(&condition, &mutex);
    own_pthread_mutex_unlock(&mutex);
    NEED(pthread_join(thread, NULL) == 0);
    own_pthread_once(&once, make);
    NEED(made == 1);
}

int main(void) {
    start();
    what_cannot_be();
    what_can();
    start();
    blocks();
    locks();
    wrong_frees();
    (void)puts("all good");
    return 0;
}
