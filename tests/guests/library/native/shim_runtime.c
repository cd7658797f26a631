/* shim_runtime.c - what else of rt.h a stub calls: large buffers, callbacks and locks. */
#include "shim.h"

#include <sched.h>
#include <stdlib.h>

struct rt_large {
    struct rt_large *next;
    uint8_t *data;
};

uint8_t *shim_region;
uint64_t shim_bulk_offset, shim_bulk_bytes;
enum cafe_status (*shim_ask)(struct rt_call *call, uint32_t number);
__thread struct rt_call *shim_call_now;

bool shim_in_bulk(const volatile void *place, uint64_t n) {
    const uint64_t offset = (uint64_t)((const volatile uint8_t *)place - shim_region) - shim_bulk_offset;
    return shim_region != NULL && offset <= shim_bulk_bytes && n <= shim_bulk_bytes - offset;
}

enum cafe_status rt_large(struct rt_call *call, struct rt_buffer *buffer, uint64_t word, uint64_t bytes) {
    const uint64_t offset = word - shim_bulk_offset;
    if (word % CAFE_CACHE_LINE != 0 || offset > shim_bulk_bytes || bytes > shim_bulk_bytes - offset) {
        return CAFE_E_MALFORMED;
    }
    struct rt_large *large = malloc(sizeof *large);
    shim_need(large != NULL && (large->data = malloc(bytes)) != NULL, "out of memory");
    large->next = call->large;
    call->large = large;
    buffer->at = large->data;
    buffer->shared = shim_region + word;
    buffer->bytes = bytes;
    return CAFE_OK;
}

void shim_forget(struct rt_call *call) {
    while (call->large != NULL) {
        struct rt_large *large = call->large;
        call->large = large->next;
        free(large->data);
        free(large);
    }
}

struct rt_call *rt_current(void) {
    return shim_call_now;
}

enum cafe_status rt_callback(struct rt_call *call, uint32_t number) {
    return shim_ask == NULL ? CAFE_E_CALLBACK : shim_ask(call, number);
}

/* The address of a thread's variable tells threads apart. */
void rt_lock(struct rt_lock *lock) {
    static __thread char self;
    const uint32_t owner = (uint32_t)((uintptr_t)&self >> 3) | 1u;
    uint32_t nobody = 0;
    while (__atomic_load_n(&lock->owner, __ATOMIC_RELAXED) != owner &&
           !__atomic_compare_exchange_n(&lock->owner, &nobody, owner, false, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED)) {
        nobody = 0;
        (void)sched_yield();
    }
    lock->depth++;
}

void rt_unlock(struct rt_lock *lock) {
    shim_need(lock->depth != 0, "unlocked too often");
    if (--lock->depth == 0) {
        __atomic_store_n(&lock->owner, 0, __ATOMIC_RELEASE);
    }
}
