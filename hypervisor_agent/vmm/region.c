/* region.c - the windows into which guest processes' memory is mapped while they use the enclave. The memory
 * slot over the windows never changes, so nothing needs KVM once the enclave runs. */
#define _GNU_SOURCE
#include "vmm.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

struct cafe_channel_header *vmm_header(const struct vmm_vm *vm, uint32_t region) {
    return (struct cafe_channel_header *)(void *)(vm->channels + region * vm->config.channel_stride);
}

struct cafe_slot *vmm_slot(const struct vmm_vm *vm, uint32_t region, uint32_t slot) {
    return (struct cafe_slot *)(void *)(vm->channels + region * vm->config.channel_stride +
                                        CAFE_CHANNEL_HEADER_BYTES + slot * vm->config.slot_bytes);
}

/* Tells the guest of a new state; one that ends the enclave wakes every waiting call. */
void vmm_mark(const struct vmm_vm *vm, uint32_t region, enum cafe_channel_state state,
              enum cafe_status status) {
    struct cafe_channel_header *header = vmm_header(vm, region);
    __atomic_store_n(&header->status, (uint32_t)status, __ATOMIC_RELEASE);
    __atomic_store_n(&header->state, (uint32_t)state, __ATOMIC_SEQ_CST);
    vmm_wake_all(&header->state);
    if (state != CAFE_CHANNEL_DEAD)
        return;
    for (uint32_t i = 0; i < vm->config.slot_count; i++)
        vmm_wake_all(&vmm_slot(vm, region, i)->reply);
}

/* A window is free again once no vCPU works for the process that had it. */
static uint32_t free_region(const struct vmm_vm *vm) {
    for (uint32_t i = 0; i < vm->config.region_count; i++)
        if (!vm->regions[i].taken &&
            __atomic_load_n(&vm->monitor->settled[i], __ATOMIC_ACQUIRE) == vm->regions[i].changes)
            return i;
    return CAFE_MAX_REGIONS;
}

static void change(struct vmm_vm *vm, uint32_t region, bool taken) {
    vmm_lock(&vm->lock);
    __atomic_store_n(&vm->regions[region].taken, taken, __ATOMIC_RELAXED);
    vmm_tell_sleeping(vm);
    vmm_unlock(&vm->lock);
    __atomic_store_n(&vm->monitor->attached[region], ++vm->regions[region].changes, __ATOMIC_SEQ_CST);
    (void)__atomic_add_fetch(&vm->changed, 1, __ATOMIC_SEQ_CST);
    vmm_wake_all(&vm->changed);
}

static int map_window(struct vmm_vm *vm, uint32_t region, int fd) {
    const uint64_t bytes = vm->config.region_bytes;
    if (!vmm_sealed(fd, bytes))
        return errno;
    void *window = vmm_header(vm, region);
    const int flags = MAP_SHARED | MAP_FIXED;
    return mmap(window, bytes, PROT_READ | PROT_WRITE, flags, fd, 0) == window ? 0 : errno;
}

/* What the process asked of an enclave that has died is not answered by this one. */
static void settle_slots(const struct vmm_vm *vm, uint32_t region) {
    for (uint32_t i = 0; i < vm->config.slot_count; i++) {
        struct cafe_slot *slot = vmm_slot(vm, region, i);
        slot->reply = __atomic_load_n(&slot->request, __ATOMIC_RELAXED);
    }
}

/* Takes `fd` over; the answer is the event to send. */
struct vmm_event vmm_attach(struct vmm_vm *vm, int fd) {
    const uint32_t region = free_region(vm);
    const int failed = region == CAFE_MAX_REGIONS ? EBUSY : map_window(vm, region, fd);
    (void)close(fd);
    struct vmm_event event = {.kind = VMM_EVENT_ATTACHED, .vector = region, .status = (uint32_t)failed};
    if (failed)
        return event;
    settle_slots(vm, region);
    vmm_mark(vm, region, CAFE_CHANNEL_READY, CAFE_OK); /* before an end could be told there */
    change(vm, region, true);
    return event;
}

/* The process has gone: its memory is taken out at once, whatever a vCPU is writing there. */
void vmm_detach(struct vmm_vm *vm, uint32_t region) {
    if (region >= vm->config.region_count || !vm->regions[region].taken)
        return;
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    void *window = vmm_header(vm, region);
    if (mmap(window, vm->config.region_bytes, PROT_READ | PROT_WRITE, flags, -1, 0) != window)
        _exit(1); /* the agent ends an enclave whose VMM has gone */
    change(vm, region, false);
}
