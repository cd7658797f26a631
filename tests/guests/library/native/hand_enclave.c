/* hand_enclave.c - serves hand.h as one vCPU would: polls, then sleeps; a callback that is out keeps nobody
 * else waiting. */
#define _GNU_SOURCE
#include "hand.h"
#include "cafe_abi.h"

#include <linux/futex.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define EAGER 64u
#define POLLS 1000u

static struct cafe_channel_header *header;
static const char *mode;                                   /* how it misbehaves when it is asked to */
static uint32_t done[CAFE_MAX_SLOTS], out[CAFE_MAX_SLOTS]; /* out: callbacks waited for */

static struct cafe_slot *slot_at(uint32_t index) {
    uint8_t *start = (uint8_t *)header + CAFE_CHANNEL_HEADER_BYTES + index * header->slot_bytes;
    return (struct cafe_slot *)(void *)start;
}

/* What a hostile enclave replies in place of the request's number. */
static uint32_t lie(uint32_t request) {
    return strcmp(mode, "early") == 0  ? request + 1
           : strcmp(mode, "late") == 0 ? request - 2
           : strcmp(mode, "jump") == 0 ? request + 0x40000000u
           : strcmp(mode, "wrap") == 0 ? UINT32_MAX
                                       : request;
}

static uint64_t word_at(const struct cafe_slot *slot, uint64_t offset) {
    uint64_t word;
    memcpy(&word, (const uint8_t *)slot + offset, sizeof word);
    return word;
}

static void answer(uint32_t index, uint32_t request, uint32_t status) {
    struct cafe_slot *slot = slot_at(index);
    __atomic_store_n(&slot->status, status, __ATOMIC_RELAXED);
    __atomic_store_n(&slot->reply, request, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&slot->waiting, __ATOMIC_SEQ_CST) != 0) {
        (void)syscall(SYS_futex, &slot->reply, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
}

static bool serve_all(void);

/* Ask the public program; what it returned, or HAND_FAILED. */
static uint64_t call_back(uint32_t index, uint32_t number, uint64_t value, uint32_t *status) {
    struct cafe_slot *slot = slot_at(index);
    const uint32_t last = done[index];
    memcpy(slot->result, &number, sizeof number);
    memcpy((uint8_t *)slot + CAFE_SLOT_FRAME, &value, sizeof value);
    const uint32_t before = out[index]++;
    answer(index, last, CAFE_STATUS_CALLBACK);
    while (out[index] != before) {
        (void)serve_all();
        _mm_pause();
    }
    const uint32_t returned = __atomic_load_n(&slot->returned, __ATOMIC_RELAXED);
    *status = returned >> 16 << 16; /* its errno becomes the call's */
    return (returned & 0xffff) == CAFE_OK ? word_at(slot, 128) : HAND_FAILED;
}

static uint8_t *buffer_at(struct cafe_slot *slot, uint64_t in_slot) {
    const uint64_t word = word_at(slot, CAFE_SLOT_FRAME);
    return word == 1 ? (uint8_t *)slot + in_slot : (uint8_t *)header + word;
}

static uint64_t run(uint32_t index, uint32_t entry, uint32_t *status) {
    struct cafe_slot *slot = slot_at(index);
    const uint64_t a = word_at(slot, CAFE_SLOT_FRAME), b = word_at(slot, CAFE_SLOT_FRAME + 8);
    const struct timespec pause = {(time_t)(a / 1000), (long)(a % 1000 * 1000000)};
    uint64_t sum = 0;
    switch (entry) {
    case HAND_ADD:
        return a + b;
    case HAND_SUM:
        for (uint64_t i = 0; i < b; i++) {
            sum += buffer_at(slot, CAFE_SLOT_FRAME + 16)[i];
        }
        return sum;
    case HAND_FILL:
        for (uint64_t i = 0; i < b; i++) {
            buffer_at(slot, 128)[i] = (uint8_t)i;
        }
        return b;
    case HAND_ASK:
        sum = call_back(index, 0, a, status);
        return sum + call_back(index, 0, a + 1, status);
    case HAND_SLEEP:
        return (uint64_t)nanosleep(&pause, NULL);
    case HAND_ERRNO:
        *status = (uint32_t)a << 16;
        return 0;
    case HAND_FORGE:
        *status = (uint32_t)a;
        return a >> 32;
    default:
        return 0;
    }
}

static bool serve(uint32_t index) {
    struct cafe_slot *slot = slot_at(index);
    const uint32_t request = __atomic_load_n(&slot->request, __ATOMIC_ACQUIRE);
    if (request == done[index]) {
        return false;
    }
    const uint32_t entry = __atomic_load_n(&slot->entry, __ATOMIC_RELAXED);
    done[index] = request;
    if (entry == CAFE_ENTRY_RETURN) {
        out[index]--;
        return true;
    }
    uint32_t status = CAFE_OK;
    const uint64_t result = run(index, entry, &status);
    memcpy(slot->result, &result, sizeof result);
    answer(index, entry == HAND_FORGE ? lie(done[index]) : done[index], status);
    if (entry == HAND_FORGE && strcmp(mode, "double") == 0) {
        answer(index, done[index], status);
    }
    return true;
}

static bool serve_all(void) {
    bool any = false;
    for (uint32_t index = 0; index < header->slot_count; index++) {
        any |= serve(index);
    }
    return any;
}

static void sleep_until_bell(void) {
    const uint32_t bell = __atomic_load_n(&header->bell, __ATOMIC_SEQ_CST);
    __atomic_store_n(&header->sleeping, CAFE_ALL_SLEEP, __ATOMIC_SEQ_CST);
    if (!serve_all()) {
        const struct timespec limit = {5, 0};
        (void)syscall(SYS_futex, &header->bell, FUTEX_WAIT, bell, &limit, NULL, 0);
    }
    __atomic_store_n(&header->sleeping, CAFE_AWAKE, __ATOMIC_SEQ_CST);
}

int main(int argc, char **argv) {
    if (argc < 3) {
        return 2;
    }
    void *region =
        mmap(NULL, strtoul(argv[2], NULL, 10), PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[1]), 0);
    if (region == MAP_FAILED) {
        return 2;
    }
    header = region;
    mode = argc > 3 ? argv[3] : "good";
    for (uint32_t index = 0; index < header->slot_count; index++) { /* as on every attachment */
        done[index] = slot_at(index)->request;
        slot_at(index)->reply = done[index];
    }
    __atomic_store_n(&header->state, CAFE_CHANNEL_READY, __ATOMIC_RELEASE);
    for (uint32_t idle = 0;; idle++) {
        if (serve_all()) {
            idle = 0;
        } else if (idle > POLLS) {
            sleep_until_bell();
            idle = 0;
        } else if (idle > EAGER) {
            _mm_pause();
        }
    }
}
