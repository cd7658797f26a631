/* enclave.c - the fake enclave: a process that serves a channel as the runtime and the VMM do. */
#define _GNU_SOURCE
#include "shim.h"

#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

static struct cafe_channel_header *header;
static const char *mode; /* how it misbehaves */

static bool is(const char *name) {
    return strcmp(mode, name) == 0;
}

static void answer(struct cafe_slot *slot, uint32_t request, enum cafe_status status) {
    uint32_t number = is("huge") ? request + 0x40000000u : is("backwards") ? request - 2 : request;
    slot->status = is("status") ? 4711 : (uint32_t)status;
    if (is("bool")) {
        memset(slot->result, 0x42, sizeof slot->result);
    }
    __atomic_store_n(&slot->reply, number, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&slot->waiting, __ATOMIC_SEQ_CST) != 0) {
        (void)syscall(SYS_futex, &slot->reply, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
}

static bool serve(uint32_t *done) {
    bool any = false;
    for (uint32_t i = 0; i < header->slot_count; i++) {
        uint8_t *start = (uint8_t *)header + CAFE_CHANNEL_HEADER_BYTES + i * header->slot_bytes;
        struct cafe_slot *slot = (struct cafe_slot *)(void *)start;
        const uint32_t request = __atomic_load_n(&slot->request, __ATOMIC_ACQUIRE);
        if (request == done[i] || is("deaf")) {
            continue;
        }
        if (is("die")) {
            _exit(3);
        }
        answer(slot, request, shim_call(slot, header->slot_bytes, slot->entry));
        done[i] = request;
        any = true;
    }
    return any;
}

static void sleep_until_bell(uint32_t *done) {
    const uint32_t bell = __atomic_load_n(&header->bell, __ATOMIC_SEQ_CST);
    __atomic_store_n(&header->sleeping, 1, __ATOMIC_SEQ_CST);
    if (!serve(done)) {
        const struct timespec limit = {5, 0};
        (void)syscall(SYS_futex, &header->bell, FUTEX_WAIT, bell, &limit, NULL, 0);
    }
    __atomic_store_n(&header->sleeping, 0, __ATOMIC_SEQ_CST);
}

int main(int argc, char **argv) {
    static uint32_t done[CAFE_MAX_SLOTS];
    if (argc != 4) {
        return 2;
    }
    mode = argv[3];
    void *region =
        mmap(NULL, strtoul(argv[2], NULL, 10), PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[1]), 0);
    if (region == MAP_FAILED) {
        return 2;
    }
    header = region;
    __atomic_store_n(&header->state, CAFE_CHANNEL_READY, __ATOMIC_RELEASE);
    for (uint32_t idle = 0;; idle++) {
        if (serve(done)) {
            idle = 0;
        } else if (idle > 2000) {
            sleep_until_bell(done);
            idle = 0;
        }
        _mm_pause();
    }
}
