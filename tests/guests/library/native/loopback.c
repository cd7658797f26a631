/* loopback.c - cafe_guest.h without a channel: a call runs the secret stub in the same thread. */
#include "cafe_guest.h"

#include "shim.h"

#include <stdio.h>
#include <stdlib.h>

#define SLOT_BYTES 16384u
#define BULK_OFFSET 65536u
#define BULK_BYTES (8u << 20)

static uint8_t *region;
static uint64_t kept, used; /* of the bulk area: by cafe_alloc, and by calls too */
static uint32_t depth;      /* of calls */
static int last_error;
static const char *last_detail = "";
static struct cafe_library *only;
static struct cafe_call *running;

static enum cafe_status ask(struct rt_call *call, uint32_t number) {
    struct cafe_callback *callback = &only->binding->callbacks[number];
    (void)call;
    if (number >= only->binding->callback_count || callback->function == NULL) {
        return CAFE_E_CALLBACK;
    }
    struct cafe_call *outer = running;
    memset(((struct cafe_slot *)(void *)outer->slot)->result, 0x5a,
           CAFE_RESULT_BYTES); /* as its number does */
    callback->serve(outer, callback->function);
    running = outer;
    const enum cafe_status status = outer->status;
    outer->status = CAFE_OK;
    return status;
}

void cafe_register(struct cafe_library *library) {
    only = library;
    region = aligned_alloc(4096, BULK_OFFSET + BULK_BYTES);
    if (region == NULL) {
        abort();
    }
    memset(region, 0xd7, BULK_OFFSET + BULK_BYTES);
    shim_region = region;
    shim_bulk_offset = BULK_OFFSET;
    shim_bulk_bytes = BULK_BYTES;
    shim_ask = ask;
}

void cafe_call_fail(struct cafe_call *call, enum cafe_status status, const char *detail) {
    if (call->status == CAFE_OK) {
        call->status = status;
        last_detail = detail == NULL ? "" : detail;
    }
}

void cafe_call_check(struct cafe_call *call, bool good) {
    if (!good) {
        cafe_call_fail(call, CAFE_E_MALFORMED, "size");
    }
}

uint64_t cafe_call_string(struct cafe_call *call, const char *text, uint64_t most) {
    const uint64_t length = strnlen(text, most);
    if (length == most) {
        cafe_call_fail(call, CAFE_E_LIMIT, "string");
        return 0;
    }
    return length + 1;
}

void cafe_call_enter(struct cafe_call *call, uint64_t fixed_bytes) {
    if (call->status == CAFE_OK) {
        call->slot = region + CAFE_CHANNEL_HEADER_BYTES;
        call->slot_bytes = SLOT_BYTES;
        call->offset = CAFE_SLOT_FRAME + fixed_bytes;
        call->nested = depth++ != 0;
    }
}

bool cafe_call_owns(const struct cafe_call *call, const void *pointer) {
    const uint64_t offset = (uint64_t)((const uint8_t *)pointer - region) - BULK_OFFSET;
    (void)call;
    return offset < kept;
}

static uint64_t take(uint64_t bytes) {
    const uint64_t start = (used + 63) & ~63ull;
    if (bytes > BULK_BYTES || start > BULK_BYTES - bytes) {
        return 0;
    }
    used = start + bytes;
    return BULK_OFFSET + start;
}

void cafe_call_place_bulk(struct cafe_call *call, struct cafe_place *place, const void *pointer,
                          uint64_t bytes) {
    place->bytes = bytes;
    if (cafe_call_owns(call, pointer)) {
        place->word = (uint64_t)((const uint8_t *)pointer - region);
        return;
    }
    place->word = take(bytes);
    place->at = region + place->word;
    if (place->word == 0) {
        place->at = NULL;
        cafe_call_fail(call, CAFE_E_LIMIT, "bulk");
    }
}

void cafe_call_run(struct cafe_call *call) {
    if (call->status != CAFE_OK) {
        return;
    }
    struct cafe_call *outer = running;
    running = call;
    const enum cafe_status status =
        shim_call((struct cafe_slot *)(void *)call->slot, SLOT_BYTES, call->entry);
    running = outer;
    if (status != CAFE_OK) {
        cafe_call_fail(call, status, "enclave");
    }
}

void cafe_call_finish(struct cafe_call *call, bool fatal) {
    if (call->slot != NULL && --depth == 0) {
        memset(region + BULK_OFFSET + kept, 0xd7, used - kept);
        used = kept;
    }
    last_error = (int)call->status;
    if (call->status == CAFE_OK) {
        last_detail = "";
    } else if (fatal) {
        fprintf(stderr, "%s: %d\n", call->library->binding->functions[call->entry].name, last_error);
        exit(70);
    }
}

int cafe_last_error(void) {
    return last_error;
}

const char *cafe_error_message(void) {
    return last_detail;
}

void *cafe_alloc(const char *library, size_t bytes) {
    (void)library;
    const uint64_t word = take(bytes);
    kept = used;
    return word == 0 ? NULL : region + word;
}

int cafe_set_callback(const char *name, void (*function)(void)) {
    for (uint32_t i = 0; i < only->binding->callback_count; i++) {
        if (strcmp(only->binding->callbacks[i].name, name) == 0) {
            only->binding->callbacks[i].function = function;
            return 0;
        }
    }
    return -1;
}
