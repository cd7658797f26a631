/* wake.c - sleeping while nothing is asked, and waking guest threads. The VMM owns both, so no Python runs.
 */
#define _GNU_SOURCE
#include "vmm.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct cafe_channel_header *header_of(const struct vmm_vm *vm) {
    return (struct cafe_channel_header *)(void *)vm->channel;
}

static struct cafe_slot *slot_of(const struct vmm_vm *vm, uint64_t index) {
    return (struct cafe_slot *)(void *)(vm->channel + CAFE_CHANNEL_HEADER_BYTES +
                                        index * vm->config.slot_bytes);
}

static void wake_all(uint32_t *word) {
    (void)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static bool request_pending(const struct vmm_vm *vm) {
    for (uint32_t i = 0; i < vm->config.slot_count; i++) {
        struct cafe_slot *slot = slot_of(vm, i);
        uint32_t reply = __atomic_load_n(&slot->reply, __ATOMIC_ACQUIRE);
        if (__atomic_load_n(&slot->request, __ATOMIC_ACQUIRE) != reply)
            return true;
    }
    return false;
}

/* Sleeps until the bell rings. The guest publishes a request, then looks at `sleeping`; we set `sleeping`,
 * then look for requests; the fences on both sides make one of us see the other. False: a watchdog tick came.
 */
bool vmm_sleep(const struct vmm_vm *vm) {
    struct cafe_channel_header *header = header_of(vm);
    bool rung = true;
    uint32_t bell = __atomic_load_n(&header->bell, __ATOMIC_ACQUIRE);
    __atomic_store_n(&header->sleeping, 1, __ATOMIC_SEQ_CST);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!request_pending(vm))
        rung = syscall(SYS_futex, &header->bell, FUTEX_WAIT, bell, NULL, NULL, 0) == 0 || errno != EINTR;
    __atomic_store_n(&header->sleeping, 0, __ATOMIC_RELEASE);
    return rung;
}

void vmm_wake_slot(const struct vmm_vm *vm, uint64_t slot) {
    if (slot < vm->config.slot_count)
        wake_all(&slot_of(vm, slot)->reply);
}

/* Tells the guest of a new state; one that ends the enclave wakes every waiting call. */
void vmm_mark(const struct vmm_vm *vm, enum cafe_channel_state state, enum cafe_status status) {
    struct cafe_channel_header *header = header_of(vm);
    __atomic_store_n(&header->status, (uint32_t)status, __ATOMIC_RELEASE);
    __atomic_store_n(&header->state, (uint32_t)state, __ATOMIC_SEQ_CST);
    wake_all(&header->state);
    if (state != CAFE_CHANNEL_DEAD)
        return;
    for (uint32_t i = 0; i < vm->config.slot_count; i++)
        wake_all(&slot_of(vm, i)->reply);
}
