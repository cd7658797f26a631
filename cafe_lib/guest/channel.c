/* channel.c - the shared memory with the enclave: checked when it is mapped, and whether it still lives. */
#define _GNU_SOURCE
#include "state.h"

#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define SPIN_CYCLES 100000u /* about 30 us; waking another core takes 45 us */

static struct cafe_channel_header *header_of(const struct cafe_state *state) {
    return (struct cafe_channel_header *)(void *)state->region;
}

static bool sealed(int fd, uint64_t region_bytes) {
    struct stat facts;
    if (fstat(fd, &facts) != 0 || facts.st_size < 0 || (uint64_t)facts.st_size != region_bytes) {
        return false;
    }
    const int needed = F_SEAL_SHRINK | F_SEAL_GROW; /* or touching it could raise SIGBUS */
    const int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && (seals & needed) == needed;
}

static bool header_good(const struct cafe_channel_header *header, uint64_t region_bytes) {
    return header->magic == CAFE_CHANNEL_MAGIC && header->abi_version == CAFE_ABI_VERSION &&
           header->slot_count >= 1 && header->slot_count <= CAFE_MAX_SLOTS &&
           header->slot_bytes >= CAFE_MIN_SLOT_BYTES && header->slot_bytes <= CAFE_MAX_SLOT_BYTES &&
           header->slot_bytes % CAFE_PAGE == 0 && header->region_bytes == region_bytes &&
           region_bytes == CAFE_CHANNEL_HEADER_BYTES + header->slot_count * header->slot_bytes;
}

/* Spinning would keep the enclave from the only CPU. */
static uint64_t spin_cycles(void) {
    cpu_set_t cpus;
    return sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) == 1 ? 0 : SPIN_CYCLES;
}

enum cafe_status cafe_channel_map(struct cafe_state *state, int fd, uint64_t region_bytes) {
    const uint64_t most = CAFE_CHANNEL_HEADER_BYTES + (uint64_t)CAFE_MAX_SLOTS * CAFE_MAX_SLOT_BYTES;
    if (region_bytes < CAFE_CHANNEL_HEADER_BYTES || region_bytes > most || !sealed(fd, region_bytes)) {
        return CAFE_E_MALFORMED;
    }
    void *region = mmap(NULL, region_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (region == MAP_FAILED) {
        return CAFE_E_LIMIT;
    }
    struct cafe_channel_header header;
    memcpy(&header, region, sizeof header); /* once: what is checked is what is used */
    if (!header_good(&header, region_bytes) || madvise(region, region_bytes, MADV_DONTFORK) != 0) {
        (void)munmap(region, region_bytes);
        return CAFE_E_MALFORMED;
    }
    state->region = region;
    state->region_bytes = region_bytes;
    state->slot_bytes = header.slot_bytes;
    state->slot_count = header.slot_count;
    state->spin_cycles = spin_cycles();
    __atomic_store_n(&state->broken, CAFE_OK, __ATOMIC_RELEASE);
    return CAFE_OK;
}

void cafe_channel_unmap(struct cafe_state *state) {
    if (state->region != NULL) {
        (void)munmap(state->region, state->region_bytes);
    }
    state->region = NULL;
    state->region_bytes = 0;
    state->slot_count = 0;
}

enum cafe_status cafe_channel_ended(struct cafe_state *state) {
    const uint32_t broken = __atomic_load_n(&state->broken, __ATOMIC_ACQUIRE);
    if (broken != CAFE_OK) {
        return (enum cafe_status)broken;
    }
    struct cafe_channel_header *header = header_of(state);
    if (__atomic_load_n(&header->state, __ATOMIC_ACQUIRE) != CAFE_CHANNEL_DEAD) {
        return CAFE_OK;
    }
    const uint32_t status = __atomic_load_n(&header->status, __ATOMIC_RELAXED);
    return status == CAFE_OK || !cafe_status_known(status) ? CAFE_E_EXITED : (enum cafe_status)status;
}

void cafe_channel_break(struct cafe_state *state, enum cafe_status status) {
    __atomic_store_n(&state->broken, (uint32_t)status, __ATOMIC_RELEASE);
}
