/* Calls of secret code back into the public program, and the calls that program makes before it returns. */
#include "rt.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct rt_call *rt_current(void) {
    return rt_cpu.boot ? rt_cpu.call : NULL;
}

/* Until the guest's next request in this slot; its number is what `served` becomes. False: the guest has
 * gone. */
static bool await(struct rt_slot *slot, const struct cafe_slot *shared) {
    uint32_t request;
    for (uint32_t turns = 0;
         (request = __atomic_load_n(&shared->request, __ATOMIC_ACQUIRE)) == slot->served;) {
        const bool last = rt_idle(turns++);
        if (!rt_attached(slot))
            return false;
        if (__atomic_load_n(&shared->waiting, __ATOMIC_ACQUIRE) && slot->woken != slot->served)
            rt_wake(slot);
        else if (last && __atomic_load_n(&shared->request, __ATOMIC_ACQUIRE) == slot->served)
            rt_nap();
    }
    return true;
}

/* A call made by the callback, in the same slot. It finds a thread's fresh state, and leaves the caller's. */
static enum cafe_status nested(const struct rt_call *outer) {
    struct rt_call call = *outer;
    call.depth++;
    call.large = NULL;
    call.offset = 0;
    if (call.depth >= CAFE_MAX_NESTING || !(call.arena = calloc(1, call.slot_bytes)))
        return CAFE_E_LIMIT;
    uint32_t mxcsr;
    uint16_t fcw;
    __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(mxcsr), "=m"(fcw));
    rt_fresh(rt_cpu.boot->isa >= CAFE_ISA_X86_64_V3);
    const enum cafe_status status = rt_run(&call);
    rt_forget(&call);
    __asm__ volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(mxcsr), "m"(fcw));
    free(call.arena);
    return status;
}

/* What the guest says of the callback, which both sides count as over. */
static enum cafe_status returned(const struct cafe_slot *shared) {
    const uint32_t word = *(const volatile uint32_t *)&shared->returned;
    const uint32_t status = word & 0xffff, error = word >> 16;
    if (error)
        errno = error <= CAFE_MAX_ERRNO ? (int)error : EIO;
    return status <= CAFE_E_CALLBACK ? (enum cafe_status)status : CAFE_E_MALFORMED;
}

enum cafe_status rt_callback(struct rt_call *call, uint32_t number) {
    struct rt_slot *slot = call->own;
    struct cafe_slot *shared = call->shared;
    if (call != rt_cpu.call)
        return CAFE_E_CALLBACK;
    uint32_t status = CAFE_STATUS_CALLBACK;
    for (;;) {
        if (status == CAFE_STATUS_CALLBACK) {
            memset(shared->result, 0, sizeof shared->result);
            memcpy(shared->result, &number, sizeof number);
        }
        rt_answer(slot, status);
        rt_end();
        const bool there = await(slot, shared);
        rt_begin(slot);
        if (!there)
            return CAFE_E_EXITED;
        const uint32_t request = __atomic_load_n(&shared->request, __ATOMIC_ACQUIRE);
        const bool next = request == slot->served + 1;
        slot->served = request;
        if (next && *(volatile uint32_t *)&shared->entry == CAFE_ENTRY_RETURN)
            return returned(shared);
        status = next ? (uint32_t)nested(call) : CAFE_E_MALFORMED;
    }
}
