/*
 * bulk.c - memory in the channel's bulk area, for buffers that no slot has room for. The enclave sees only
 * the bytes; which are in use is private, so nothing it writes can lead an allocation astray. First fit: a
 * call's buffers come to lie where those of the last one did, in pages that are there already.
 */
#define _GNU_SOURCE
#include "state.h"

#include <stdlib.h>
#include <sys/mman.h>

struct cafe_block {
    struct cafe_block *next;           /* of the same call */
    struct cafe_block *before, *after; /* of the same mapping, by offset */
    struct cafe_mapping *mapping;
    uint64_t offset, bytes;
};

static bool place(struct cafe_mapping *mapping, struct cafe_block *block) {
    struct cafe_block *before = NULL, *after = mapping->blocks;
    uint64_t at = mapping->bulk;
    for (; after != NULL && after->offset - at < block->bytes; after = after->after) {
        at = after->offset + after->bytes;
        before = after;
    }
    if (after == NULL && mapping->bulk + mapping->bulk_bytes - at < block->bytes) {
        return false;
    }
    block->offset = at;
    block->mapping = mapping;
    block->before = before;
    block->after = after;
    *(before == NULL ? &mapping->blocks : &before->after) = block;
    if (after != NULL) {
        after->before = block;
    }
    return true;
}

struct cafe_block *cafe_bulk_take(struct cafe_state *state, uint64_t bytes) {
    struct cafe_block *block = bytes > CAFE_MAX_BULK_BYTES ? NULL : calloc(1, sizeof *block);
    if (block == NULL) {
        return NULL;
    }
    const uint64_t lines = (bytes + CAFE_CACHE_LINE - 1) / CAFE_CACHE_LINE;
    block->bytes = (lines == 0 ? 1 : lines) * CAFE_CACHE_LINE;
    (void)pthread_mutex_lock(&state->bulk_lock);
    const bool placed = state->mapping != NULL && place(state->mapping, block);
    (void)pthread_mutex_unlock(&state->bulk_lock);
    if (!placed) {
        free(block);
        return NULL;
    }
    return block;
}

uint8_t *cafe_bulk_memory(const struct cafe_block *block, uint64_t *offset) {
    *offset = block->offset;
    return block->mapping->region + block->offset;
}

/* Its pages at once, before the first copy into them: a fault for each costs more than copying it. */
void cafe_bulk_populate(struct cafe_state *state, struct cafe_block *block) {
#ifdef MADV_POPULATE_WRITE
    struct cafe_mapping *mapping = block->mapping;
    const uint64_t end = block->offset + block->bytes;
    (void)pthread_mutex_lock(&state->bulk_lock);
    const uint64_t start = mapping->touched > block->offset ? mapping->touched : block->offset;
    mapping->touched = end > mapping->touched ? end : mapping->touched;
    (void)pthread_mutex_unlock(&state->bulk_lock);
    if (start < end) {
        const uint64_t page = start & ~(uint64_t)(CAFE_PAGE - 1);
        (void)madvise(mapping->region + page, end - page, MADV_POPULATE_WRITE); /* or a fault for each */
    }
#else
    (void)state, (void)block;
#endif
}

/* Under the lock: forget a mapping that is not the present one, once nobody may touch it. */
void cafe_bulk_drop(struct cafe_state *state, struct cafe_mapping *mapping) {
    if (mapping == state->mapping || mapping->blocks != NULL || mapping->kept) {
        return;
    }
    struct cafe_mapping *before = state->mapping;
    while (before->next != mapping) {
        before = before->next;
    }
    before->next = mapping->next;
    (void)munmap(mapping->region, mapping->region_bytes);
    free(mapping);
}

static void unlink_block(struct cafe_state *state, struct cafe_block *block) {
    *(block->before == NULL ? &block->mapping->blocks : &block->before->after) = block->after;
    if (block->after != NULL) {
        block->after->before = block->before;
    }
    cafe_bulk_drop(state, block->mapping);
    free(block);
}

void cafe_bulk_give(struct cafe_state *state, struct cafe_block *blocks) {
    if (blocks == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&state->bulk_lock);
    while (blocks != NULL) {
        struct cafe_block *next = blocks->next;
        unlink_block(state, blocks);
        blocks = next;
    }
    (void)pthread_mutex_unlock(&state->bulk_lock);
}

void cafe_bulk_chain(struct cafe_block *block, struct cafe_block **chain) {
    block->next = *chain;
    *chain = block;
}

bool cafe_bulk_known(struct cafe_state *state) {
    (void)pthread_mutex_lock(&state->bulk_lock);
    const bool known = state->mapping != NULL;
    (void)pthread_mutex_unlock(&state->bulk_lock);
    return known;
}

bool cafe_bulk_holds(struct cafe_state *state, uint64_t offset, uint64_t bytes) {
    bool inside = false;
    (void)pthread_mutex_lock(&state->bulk_lock);
    for (const struct cafe_block *block = state->mapping->blocks; block != NULL; block = block->after) {
        const uint64_t within = offset - block->offset;
        inside |= offset >= block->offset && within <= block->bytes && bytes <= block->bytes - within;
    }
    (void)pthread_mutex_unlock(&state->bulk_lock);
    return inside;
}

bool cafe_bulk_free(struct cafe_state *state, const uint8_t *memory) {
    struct cafe_block *found = NULL;
    (void)pthread_mutex_lock(&state->bulk_lock);
    for (struct cafe_mapping *mapping = state->mapping; mapping != NULL; mapping = mapping->next) {
        for (struct cafe_block *block = mapping->blocks; block != NULL; block = block->after) {
            found = mapping->region + block->offset == memory ? block : found;
        }
    }
    if (found != NULL) {
        unlink_block(state, found);
    }
    (void)pthread_mutex_unlock(&state->bulk_lock);
    return found != NULL;
}
