/* alloc.c - large buffers of a program: memory it shares with the enclave, and other memory that is copied.
 */
#include "seat.h"

static const char no_room[] =
    "no room for so large a buffer; pass less at a time, or raise `bulk` under [memory] in cafe.toml";

bool cafe_call_owns(const struct cafe_call *call, const void *pointer) {
    const struct cafe_mapping *mapping = call->state->mapping;
    const uint64_t offset = (uint64_t)(uintptr_t)pointer - (uint64_t)(uintptr_t)mapping->region;
    return offset >= mapping->bulk && offset - mapping->bulk < mapping->bulk_bytes;
}

/* Shared memory crosses as it is, if it begins where a buffer may; false: it has to be copied. */
static bool cross_as_is(struct cafe_call *call, struct cafe_place *place, const void *pointer,
                        uint64_t bytes) {
    if (!cafe_call_owns(call, pointer)) {
        return false;
    }
    const uint64_t offset = (uint64_t)((const uint8_t *)pointer - call->state->region);
    if (!cafe_bulk_holds(call->state, offset, bytes)) {
        cafe_call_fail(call, CAFE_E_LIMIT, "a buffer reaches beyond the memory that cafe_alloc gave");
        return true;
    }
    place->word = offset;
    place->bytes = bytes;
    return offset % CAFE_CACHE_LINE == 0;
}

void cafe_call_place_bulk(struct cafe_call *call, struct cafe_place *place, const void *pointer,
                          uint64_t bytes) {
    const uint64_t start = (call->offset + 15) & ~(uint64_t)15;
    if (cross_as_is(call, place, pointer, bytes)) {
        return;
    }
    place->bytes = bytes;
    if (start <= call->slot_bytes && bytes <= call->slot_bytes - start) {
        place->word = 1;
        place->at = call->slot + start;
        call->offset = start + bytes;
        return;
    }
    struct cafe_block *block = cafe_bulk_take(call->state, bytes);
    if (block == NULL) {
        cafe_call_fail(call, CAFE_E_LIMIT, no_room);
        return;
    }
    cafe_bulk_chain(block, &call->blocks);
    cafe_bulk_populate(call->state, block);
    place->at = cafe_bulk_memory(block, &place->word);
}

/* Any call would do; this one needs no function. */
static enum cafe_status start_enclave(struct cafe_state *state) {
    uint32_t seat = 0;
    const bool hurry = cafe_self()->open != NULL && cafe_self()->open->inner == NULL;
    const enum cafe_status status = cafe_seat_take(state, hurry, &seat);
    if (status == CAFE_OK) {
        cafe_turn_release(state, seat);
    }
    return status;
}

CAFE_PUBLIC void *cafe_alloc(const char *library, size_t bytes) {
    struct cafe_state *state = cafe_find_state(library);
    if (state == NULL) {
        cafe_error_set(CAFE_E_NOT_FOUND, "this program has no protected library of that name");
        return NULL;
    }
    struct cafe_block *block = cafe_bulk_take(state, bytes);
    if (block == NULL && !cafe_bulk_known(state)) {
        if (start_enclave(state) != CAFE_OK) {
            return NULL;
        }
        block = cafe_bulk_take(state, bytes);
    }
    if (block == NULL) {
        cafe_error_set(CAFE_E_LIMIT, no_room);
        return NULL;
    }
    uint64_t offset = 0;
    return cafe_bulk_memory(block, &offset);
}

CAFE_PUBLIC void cafe_free(void *memory) {
    struct cafe_state *state = memory == NULL ? NULL : cafe_first_state();
    while (state != NULL && !cafe_bulk_free(state, memory)) {
        state = state->next;
    }
}
