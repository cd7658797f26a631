/* channel.c - the shared memory with the enclave: checked when it is mapped, and whether it still lives. */
#define _GNU_SOURCE
#include "cafe_channel_check.h"
#include "seat.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define MOST_BYTES                                                                                           \
    (CAFE_CHANNEL_HEADER_BYTES + (uint64_t)CAFE_MAX_SLOTS * CAFE_MAX_SLOT_BYTES + CAFE_BULK_ALIGN +          \
     CAFE_MAX_BULK_BYTES)

static bool sealed(int fd, const struct stat *facts, uint64_t region_bytes) {
    const int needed = F_SEAL_SHRINK | F_SEAL_GROW; /* or touching it could raise SIGBUS */
    const int seals = fcntl(fd, F_GET_SEALS);
    return facts->st_size >= 0 && (uint64_t)facts->st_size == region_bytes && seals >= 0 &&
           (seals & needed) == needed;
}

static enum cafe_status map(struct cafe_mapping *mapping, struct cafe_channel_header *header, int fd) {
    const uint64_t bytes = mapping->region_bytes;
    void *region = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (region == MAP_FAILED) {
        return CAFE_E_LIMIT;
    }
    memcpy(header, region, sizeof *header); /* once: what is checked is what is used */
    if (cafe_channel_check(header, bytes) != NULL || madvise(region, bytes, MADV_DONTFORK) != 0) {
        (void)munmap(region, bytes);
        return CAFE_E_MALFORMED;
    }
    mapping->region = region;
    mapping->bulk = mapping->touched = cafe_channel_bulk(header);
    mapping->bulk_bytes = header->bulk_bytes;
    return CAFE_OK;
}

/* The new one comes first; the one before goes, unless somebody may still touch it. */
static void adopt(struct cafe_state *state, struct cafe_mapping *mapping,
                  const struct cafe_channel_header *header) {
    (void)pthread_mutex_lock(&state->bulk_lock);
    struct cafe_mapping *before = state->mapping;
    mapping->next = before;
    state->mapping = mapping;
    if (before != NULL) {
        cafe_bulk_drop(state, before);
    }
    (void)pthread_mutex_unlock(&state->bulk_lock);
    state->region = mapping->region;
    state->slot_bytes = header->slot_bytes;
    state->slot_count = header->slot_count;
    for (uint32_t seat = 0; seat < CAFE_MAX_SLOTS; seat++) {
        state->seats[seat].sequence = 0;
    }
}

enum cafe_status cafe_channel_map(struct cafe_state *state, int fd, uint64_t region_bytes) {
    struct stat facts;
    if (region_bytes < CAFE_CHANNEL_HEADER_BYTES || region_bytes > MOST_BYTES || fstat(fd, &facts) != 0 ||
        !sealed(fd, &facts, region_bytes)) {
        return CAFE_E_MALFORMED;
    }
    const struct cafe_mapping *now = state->mapping;
    if (now == NULL || now->device != facts.st_dev || now->inode != facts.st_ino) {
        struct cafe_channel_header header;
        struct cafe_mapping *mapping = calloc(1, sizeof *mapping);
        if (mapping == NULL) {
            return CAFE_E_LIMIT;
        }
        mapping->region_bytes = region_bytes;
        mapping->device = facts.st_dev;
        mapping->inode = facts.st_ino;
        const enum cafe_status status = map(mapping, &header, fd);
        if (status != CAFE_OK) {
            free(mapping);
            return status;
        }
        adopt(state, mapping, &header);
    }
    __atomic_store_n(&state->broken, CAFE_OK, __ATOMIC_RELEASE);
    return CAFE_OK;
}

enum cafe_status cafe_channel_reason(const struct cafe_state *state) {
    const uint32_t broken = __atomic_load_n(&state->broken, __ATOMIC_ACQUIRE);
    if (broken != CAFE_OK || cafe_channel_alive(state)) {
        return (enum cafe_status)broken;
    }
    const uint32_t status = __atomic_load_n(&cafe_header(state)->status, __ATOMIC_ACQUIRE);
    return status == CAFE_OK || !cafe_status_known(status) ? CAFE_E_EXITED : (enum cafe_status)status;
}

void cafe_channel_break(struct cafe_state *state, enum cafe_status status) {
    __atomic_store_n(&state->broken, (uint32_t)status, __ATOMIC_RELEASE);
}
