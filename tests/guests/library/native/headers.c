/* headers.c - the channel's checks on many header pages: what is accepted can be used to its last byte. */
#define _GNU_SOURCE
#include "state.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t seed = 88172645463325252ull;

static uint64_t random_word(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed >> 3;
}

static uint64_t choose(uint64_t right) {
    const uint64_t edges[] = {0,         1, 64, 65, 4095, 4096, 4097, 8192, 1ull << 26, (1ull << 26) + 4096,
                              1ull << 63};
    const uint64_t word = random_word();
    return word % 16 == 0   ? edges[(word >> 8) % (sizeof edges / sizeof *edges)]
           : word % 16 == 1 ? ~0ull - (word >> 8) % 5000
           : word % 16 == 2 ? right + 4096 - (word >> 8) % 8192
                            : right;
}

static int channel(const struct cafe_channel_header *header, uint64_t bytes) {
    const int fd = memfd_create("channel", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0 || pwrite(fd, header, sizeof *header, 0) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | (random_word() % 8 ? F_SEAL_GROW : 0)) != 0) {
        perror("channel");
        exit(2);
    }
    return fd;
}

static bool touch(const struct cafe_state *state) {
    const struct cafe_mapping *mapping = state->mapping;
    const uint64_t slots_end = CAFE_CHANNEL_HEADER_BYTES + state->slot_count * state->slot_bytes;
    const uint64_t end = mapping->bulk + mapping->bulk_bytes;
    if (state->slot_count == 0 || state->slot_count > CAFE_MAX_SLOTS || end != mapping->region_bytes ||
        mapping->bulk < slots_end || (mapping->bulk_bytes != 0 && mapping->bulk % CAFE_BULK_ALIGN != 0)) {
        return false;
    }
    for (uint64_t at = 0; at < end; at += at < slots_end ? CAFE_PAGE : CAFE_PAGE * 64) {
        ((volatile uint8_t *)state->region)[at + CAFE_PAGE - 1] = 1;
    }
    return true;
}

int main(void) {
    static struct cafe_state first;
    struct cafe_state *state = &first;
    long accepted = 0, refused = 0;
    for (int i = 0; i < 20000; i++) {
        struct cafe_channel_header header = {.abi_version = (uint32_t)choose(CAFE_ABI_VERSION)};
        const uint64_t count = 1 + random_word() % 8, slot_bytes = CAFE_PAGE * (1 + random_word() % 4);
        const uint64_t bulk = random_word() % 4 == 0 ? CAFE_BULK_ALIGN * (1 + random_word() % 2) : 0;
        const uint64_t region = bulk == 0 ? CAFE_CHANNEL_HEADER_BYTES + count * slot_bytes
                                          : CAFE_BULK_ALIGN + bulk; /* the slots take less than that */
        header.magic = choose(CAFE_CHANNEL_MAGIC);
        header.slot_count = (uint32_t)choose(count);
        header.slot_bytes = choose(slot_bytes);
        header.bulk_bytes = choose(bulk);
        header.region_bytes = choose(region);
        const uint64_t size = random_word() % 8 ? region : choose(region) % (8u << 20);
        const int fd = channel(&header, size < sizeof header ? sizeof header : size);
        if (cafe_channel_map(state, fd, choose(region)) == CAFE_OK) {
            accepted++;
            if (!touch(state)) {
                return 1;
            }
        } else {
            refused++;
        }
        (void)close(fd);
    }
    printf("accepted %ld refused %ld\n", accepted, refused);
    return accepted > 1000 && refused > 1000 ? 0 : 1;
}
