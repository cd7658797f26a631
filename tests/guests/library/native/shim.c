/* shim.c - rt.h for an ordinary process: the same promises, and an abort where a stub breaks one. */
#include "shim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__thread struct shim_slot shim_now;

void shim_need(bool good, const char *what) {
    if (!good) {
        fprintf(stderr, "shim: %s\n", what);
        abort();
    }
}

void rt_abort(enum cafe_status status) {
    fprintf(stderr, "shim: rt_abort(%d)\n", (int)status);
    abort();
}

enum cafe_status shim_call(struct cafe_slot *slot, uint64_t slot_bytes, uint32_t entry) {
    if (entry >= shim_entry_count) {
        return CAFE_E_ENTRY;
    }
    struct rt_call call = {.slot = (const volatile uint8_t *)slot, .slot_bytes = slot_bytes, .shared = slot};
    call.arena = malloc(slot_bytes);
    shim_need(call.arena != NULL, "out of memory");
    memset(call.arena, 0xa5, slot_bytes);
    const struct shim_slot slot_before = shim_now;
    struct rt_call *const call_before = shim_call_now;
    shim_now.start = call.slot;
    shim_now.bytes = slot_bytes;
    shim_call_now = &call;
    const enum cafe_status status = shim_entries[entry](&call);
    shim_need(call.offset <= slot_bytes, "more used than there is");
    shim_call_now = call_before;
    shim_now = slot_before;
    shim_forget(&call);
    free(call.arena);
    return status;
}
