/* lies_secret.c - a hostile guest against the secret stubs of structs with pointers, of buffers in the bulk
 * area, and of callbacks. */
#include "lies_inside.h"
#include "shim.h"

#include <string.h>

#define SLOT_BYTES 4096u
#define BULK_OFFSET 8192u
#define BULK_BYTES 4096u
#define REGION_BYTES (BULK_OFFSET + BULK_BYTES + 4096u)
#define DEEP 0u
#define BULK 1u
#define ASK 2u
#define FILL 3u
#define ONE 4u
#define NONE 5u
#define TURN 6u

struct wire { /* struct lies_request as it lies in the frame */
    uint64_t in;
    uint32_t n;
    uint8_t sure;
    int16_t m;
    uint64_t out, name, both, handle;
    uint8_t tail;
};
struct bulk {
    uint64_t in, n, out, m;
    uint32_t k;
    uint64_t both;
};

static const uint64_t edges[] = {0,
                                 1,
                                 2,
                                 16,
                                 17,
                                 0x7fff,
                                 0x8000,
                                 BULK_OFFSET,
                                 BULK_OFFSET + 1,
                                 BULK_OFFSET + 64,
                                 BULK_OFFSET + BULK_BYTES - 64,
                                 BULK_OFFSET + BULK_BYTES,
                                 BULK_OFFSET - 64,
                                 4096,
                                 1ull << 32,
                                 1ull << 61,
                                 1ull << 63,
                                 ~0ull,
                                 ~0ull - 63};
#define EDGES (sizeof edges / sizeof *edges)

static uint8_t *region; /* one slot, a gap, the bulk area, a gap */
static uint64_t asked;

static enum cafe_status call(uint32_t entry) {
    return shim_call((struct cafe_slot *)(void *)region, SLOT_BYTES, entry);
}

static enum cafe_status try_deep(uint64_t request, struct wire wire) {
    const uint64_t fixed[2] = {request, 0};
    memset(region + CAFE_SLOT_FRAME, 'x', SLOT_BYTES - CAFE_SLOT_FRAME);
    memcpy(region + CAFE_SLOT_FRAME, fixed, sizeof fixed);
    memcpy(region + (request == 1 ? 96 : BULK_OFFSET), &wire, sizeof wire);
    return call(DEEP);
}

static enum cafe_status try_bulk(struct bulk bulk) {
    memcpy(region + CAFE_SLOT_FRAME, &bulk, sizeof bulk);
    return call(BULK);
}

static bool region_holds(uint64_t word) {
    for (uint64_t at = 0; at + 8 <= REGION_BYTES; at += 8) {
        if (memcmp(region + at, &word, 8) == 0) {
            return true;
        }
    }
    return false;
}

/* No pointer of the enclave, no padding, and the caller's numbers only. */
static void deep_answer_is_clean(uint64_t at) {
    static const uint8_t zero[8];
    const uint8_t *answer = region + at;
    for (uint64_t place = 16; place <= 40; place += 8) {
        CHECK(memcmp(answer + place, zero, 8) == 0);
    }
    CHECK(memcmp(answer, zero, 8) == 0 && answer[13] == 0 && memcmp(answer + 49, zero, 7) == 0);
    CHECK(answer[12] == 1 && answer[48] == 1);
    for (int i = 0; i < INSIDE_OWN; i++) {
        CHECK(inside_own[i] == NULL || !region_holds((uint64_t)(uintptr_t)inside_own[i]));
    }
}

static void deep_frames(void) {
    const struct wire good = {.in = 1, .n = 9, .sure = 0xfe, .m = 5, .out = 1, .both = 1, .handle = 99};
    struct wire wire = good;
    CHECK(try_deep(1, good) == CAFE_OK);
    deep_answer_is_clean(96);
    CHECK(try_deep(BULK_OFFSET, good) == CAFE_OK);
    deep_answer_is_clean(BULK_OFFSET);
    wire.in = BULK_OFFSET + 64;
    CHECK(try_deep(1, wire) == CAFE_OK);
    wire.in = 2;
    CHECK(try_deep(1, wire) == CAFE_E_MALFORMED);
    wire = good;
    wire.m = -1;
    CHECK(try_deep(1, wire) == CAFE_E_MALFORMED);
    wire.out = 0;
    CHECK(try_deep(1, wire) == CAFE_OK); /* null: its count does not matter */
    wire = good;
    wire.n = 0x7fffffff;
    CHECK(try_deep(1, wire) == CAFE_E_LIMIT);
    wire = good;
    wire.name = 17;
    CHECK(try_deep(1, wire) == CAFE_E_MALFORMED);
    wire.name = 16; /* not terminated */
    CHECK(try_deep(1, wire) == CAFE_E_MALFORMED);
    wire.name = ~0ull;
    CHECK(try_deep(1, wire) == CAFE_E_MALFORMED);
    CHECK(try_deep(3, good) == CAFE_E_MALFORMED);
    CHECK(try_deep(BULK_OFFSET + BULK_BYTES, good) == CAFE_E_MALFORMED);
}

static void bulk_frames(void) {
    const uint64_t end = BULK_OFFSET + BULK_BYTES, most = ~0ull;
    CHECK(try_bulk((struct bulk){.in = BULK_OFFSET, .n = BULK_BYTES}) == CAFE_OK);
    CHECK(try_bulk((struct bulk){.in = BULK_OFFSET, .n = BULK_BYTES + 1}) == CAFE_E_MALFORMED);
    CHECK(try_bulk((struct bulk){.in = BULK_OFFSET + 64, .n = BULK_BYTES - 63}) == CAFE_E_MALFORMED);
    CHECK(try_bulk((struct bulk){.in = end - 64, .n = 64}) == CAFE_OK);
    CHECK(try_bulk((struct bulk){.in = end - 64, .n = 65}) == CAFE_E_MALFORMED);
    CHECK(try_bulk((struct bulk){.in = end, .n = 1}) == CAFE_E_MALFORMED);
    CHECK(try_bulk((struct bulk){.in = BULK_OFFSET + 8, .n = 1}) == CAFE_E_MALFORMED);
    CHECK(try_bulk((struct bulk){.in = BULK_OFFSET - 64, .n = 1}) == CAFE_E_MALFORMED);
    CHECK(try_bulk((struct bulk){.in = 64, .n = 1}) == CAFE_E_MALFORMED); /* a slot is not bulk */
    CHECK(try_bulk((struct bulk){.in = most - 63, .n = 128}) == CAFE_E_MALFORMED);
    CHECK(try_bulk((struct bulk){.in = BULK_OFFSET, .n = most}) == CAFE_E_MALFORMED);
    CHECK(try_bulk((struct bulk){.out = BULK_OFFSET, .m = 1ull << 32, .k = 1u << 31}) == CAFE_E_LIMIT);
    CHECK(try_bulk((struct bulk){.out = BULK_OFFSET, .m = 1ull << 33, .k = 1u << 31}) == CAFE_E_MALFORMED);
    CHECK(try_bulk((struct bulk){.both = BULK_OFFSET, .n = 1ull << 61, .m = 0}) == CAFE_E_LIMIT);
    CHECK(try_bulk((struct bulk){.both = BULK_OFFSET, .n = most, .m = 1}) == CAFE_E_MALFORMED);
    /* overlapping and the same buffers: private copies all the same */
    memset(region + BULK_OFFSET, 3, BULK_BYTES);
    CHECK(try_bulk((struct bulk){
              .in = BULK_OFFSET, .n = 100, .out = BULK_OFFSET + 64, .m = 30, .k = 2, .both = BULK_OFFSET}) ==
          CAFE_OK);
}

/* An answer carries nothing of the one before it. */
static void results(void) {
    const uint8_t *result = region + offsetof(struct cafe_slot, result);
    for (uint32_t entry = ONE; entry <= NONE; entry++) {
        region[CAFE_SLOT_FRAME] = 0xab;
        CHECK(call(FILL) == CAFE_OK);
        CHECK(result[0] == 0xab && result[CAFE_RESULT_BYTES - 1] == 0xab);
        CHECK(call(entry) == CAFE_OK);
        CHECK(result[0] == (entry == ONE));
        for (uint32_t i = 1; i < CAFE_RESULT_BYTES; i++) {
            CHECK(result[i] == 0);
        }
    }
}

static uint32_t ask(uint16_t n, uint8_t what) {
    uint32_t result;
    memcpy(region + CAFE_SLOT_FRAME, &n, sizeof n);
    region[CAFE_SLOT_FRAME + 2] = what;
    CHECK(call(ASK) == CAFE_OK);
    memcpy(&result, region + offsetof(struct cafe_slot, result), sizeof result);
    return result;
}

/* The guest's side of a callback: sees no padding, and then says what it likes. */
static enum cafe_status look(struct rt_call *call_now, uint32_t number) {
    const uint8_t *frame = region + CAFE_SLOT_FRAME;
    (void)call_now;
    asked++;
    if (number == 1) {
        static const uint8_t pair[12] = {0xee, 0, 0, 0, 0xee, 0xee, 0xee, 0xee, 1, 0, 0, 0};
        CHECK(frame[0] == 1 && memcmp(frame + 4, pair, sizeof pair) == 0 && frame[16] == 0x67);
        region[128] = 0xfe; /* a bool of other than 0 and 1 */
    }
    if (number == 2) {
        for (uint32_t i = 0; i < frame[8]; i++) {
            const uint8_t *pair = region + 96 + i * sizeof(lies_pair);
            CHECK(pair[0] == 0xee && pair[1] == 0 && pair[3] == 0 && pair[8] <= 1 && pair[11] == 0);
        }
    }
    return number == 3 ? CAFE_E_LICENCE : CAFE_OK;
}

static void callbacks(void) {
    shim_ask = look;
    memset(region + CAFE_SLOT_FRAME, 0, SLOT_BYTES - CAFE_SLOT_FRAME);
    CHECK(ask(0, 1) == 1 && asked == 1);
    (void)ask(19, 2);
    CHECK(asked == 2);
    CHECK(ask(0, 3) != ~0u && asked == 3);
    CHECK(ask(0, 4) == 99 && asked == 3); /* too long: the guest never hears of it */
    CHECK(ask(0, 5) == (uint32_t)-3 && ask(0, 6) == 0 && asked == 3);
    CHECK(ask(0, 7) != ~0u && asked == 4);
    CHECK(ask(5000, 0) == ~0u && asked == 4);
    shim_ask = NULL;
    CHECK(ask(3, 0) == ~0u && ask(3, 1) == 0 && ask(3, 2) == 0);
    CHECK(!lies_agree(true, (lies_pair){0}, NULL)); /* outside any call */
}

/* Rewrites the whole slot as it answers. */
static enum cafe_status scribble(struct rt_call *call_now, uint32_t number) {
    static uint64_t state = 77;
    (void)number;
    (void)call_now;
    asked++;
    for (uint64_t at = 8; at < SLOT_BYTES; at += 8) {
        const uint64_t word = at < 200 ? hostile_word(&state, edges, EDGES) : random_word(&state);
        memcpy(region + at, &word, sizeof word);
    }
    return random_word(&state) % 8 == 0 ? CAFE_E_FAULT : CAFE_OK;
}

static void race(uint64_t *state) {
    const enum cafe_status status = call((uint32_t)(random_word(state) % 3));
    CHECK(status == CAFE_OK || status == CAFE_E_MALFORMED || status == CAFE_E_LIMIT);
}

static void attempt(uint64_t *state) {
    for (uint64_t at = CAFE_SLOT_FRAME; at < 160; at += 8) {
        const uint64_t word = hostile_word(state, edges, EDGES);
        memcpy(region + at, &word, sizeof word);
    }
    (void)ask((uint16_t)(random_word(state) % 300), (uint8_t)random_word(state));
    race(state);
}

static void disturb(uint64_t *state) {
    const uint64_t place = CAFE_SLOT_FRAME + 8 * (random_word(state) % 10);
    __atomic_store_n((uint64_t *)(void *)(region + place), hostile_word(state, edges, EDGES),
                     __ATOMIC_RELAXED);
    region[160 + random_word(state) % (SLOT_BYTES - 160)] = (uint8_t)(*state % 3);
    region[BULK_OFFSET + random_word(state) % BULK_BYTES] = (uint8_t)(*state % 3);
    if (*state % 8 == 0) {
        region[CAFE_SLOT_FRAME + 2] = (uint8_t)(*state >> 8); /* which callbacks */
    }
}

static void attack(double seconds) {
    struct hostile random = {.attempt = attempt}, racing = {.attempt = race, .disturb = disturb};
    shim_ask = scribble;
    hostile_run(&random, seconds);
    CHECK(inside_calls > random.attempts / 100);
    inside_calls = asked = 0;
    hostile_run(&racing, seconds);
    printf("racing: %lu frames, %lu calls, %lu callbacks, %lu rewrites\n", racing.attempts, inside_calls,
           asked, racing.disturbances);
}

/* Two slots at once, as two vCPUs have them. */
static void *turns(void *argument) {
    uint8_t *slot = aligned_alloc(4096, SLOT_BYTES);
    const uint32_t count = 2;
    CHECK(slot != NULL);
    memset(slot, 0, SLOT_BYTES);
    for (int i = 0; i < 20000; i++) {
        memcpy(slot + CAFE_SLOT_FRAME, &count, sizeof count);
        CHECK(shim_call((struct cafe_slot *)(void *)slot, SLOT_BYTES, TURN) == CAFE_OK);
    }
    free(slot);
    return argument;
}

static void serial(void) {
    pthread_t threads[3];
    uint32_t counted;
    for (int i = 0; i < 3; i++) {
        CHECK(pthread_create(&threads[i], NULL, turns, NULL) == 0);
    }
    for (int i = 0; i < 3; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    memset(region + CAFE_SLOT_FRAME, 0, 4);
    CHECK(call(TURN) == CAFE_OK);
    memcpy(&counted, region + offsetof(struct cafe_slot, result), sizeof counted);
    CHECK(counted == 3 * 20000 * 2);
}

int main(int argc, char **argv) {
    region = aligned_alloc(4096, REGION_BYTES);
    CHECK(region != NULL && sizeof(struct wire) == sizeof(struct lies_request));
    memset(region, 0x77, REGION_BYTES);
    shim_region = region;
    shim_bulk_offset = BULK_OFFSET;
    shim_bulk_bytes = BULK_BYTES;
    if (argc > 2) { /* a callback that fails and has no value for that ends the enclave */
        const uint32_t once = 1;
        shim_ask = look;
        memcpy(region + CAFE_SLOT_FRAME, &once, sizeof once);
        return (int)call(TURN);
    }
    deep_frames();
    bulk_frames();
    results();
    callbacks();
    serial();
    attack(argc > 1 ? atof(argv[1]) : 1);
    for (uint32_t i = 0; i < 4096; i++) {
        CHECK(region[SLOT_BYTES + i] == 0x77 && region[BULK_OFFSET + BULK_BYTES + i] == 0x77);
    }
    free(region);
    puts("all good");
    return 0;
}
