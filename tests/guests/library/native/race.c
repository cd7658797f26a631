/*
 * race.c - a hostile guest against the secret stubs: bad frames, random frames, and frames that another
 * thread rewrites all the time. The secret functions check that what they were given keeps still and fits.
 */
#include "race.h"
#include "hostile.h"
#include "shim.h"

#include <string.h>

#define SLOT_BYTES 4096u
#define LEAST_REWRITES 10000000u

static uint64_t calls; /* that reached a secret function */

static bool apart(const void *a, uint64_t a_bytes, const void *b, uint64_t b_bytes) {
    return a == NULL || b == NULL || (const uint8_t *)a + a_bytes <= (const uint8_t *)b ||
           (const uint8_t *)b + b_bytes <= (const uint8_t *)a;
}

uint64_t race_all(const uint8_t *data, uint16_t n, const char *text, race_pair *pairs, int8_t k,
                  uint32_t *out) {
    const uint64_t out_count = n % 50u, pair_count = (uint64_t)(k + 1);
    CHECK(pairs == NULL || k >= 0); /* a negative count never gets here */
    const uint64_t pair_bytes = pairs == NULL ? 0 : pair_count * sizeof *pairs;
    const uint64_t before = data == NULL ? 0 : sum(data, n);
    const uint64_t length = text == NULL ? 0 : strlen(text);
    CHECK(length < 64);
    CHECK(apart(data, n, pairs, pair_bytes) && apart(pairs, pair_bytes, out, out_count * sizeof *out));
    CHECK(apart(data, n, out, out_count * sizeof *out) && apart(text, length + 1, out, out_count * 4));
    for (uint64_t i = 0; out != NULL && i < out_count; i++) {
        CHECK(out[i] == 0);
        out[i] = (uint32_t)i;
    }
    if (pairs != NULL) {
        memset(pairs, 0x11, pair_bytes);
    }
    CHECK(text == NULL || strlen(text) == length);
    CHECK(data == NULL || sum(data, n) == before);
    calls++;
    return before;
}

uint64_t race_sizes(const uint64_t *data, uint64_t a, uint64_t b, uint16_t *out, race_pair pair, bool flag) {
    uint64_t product = 0, total = 0;
    CHECK(data == NULL || (!__builtin_mul_overflow(a, b, &product) && product <= SLOT_BYTES / 8));
    CHECK(out == NULL || (!__builtin_add_overflow(a, b, &total) && total <= SLOT_BYTES / 2));
    const uint64_t before = data == NULL ? 0 : sum(data, product * 8);
    for (uint64_t i = 0; out != NULL && i < total; i++) {
        CHECK(out[i] == 0);
        out[i] = (uint16_t)(pair.a + flag);
    }
    CHECK(data == NULL || sum(data, product * 8) == before);
    calls++;
    return before;
}

/* The table is as long as a bool has values: what else a guest puts into its byte must not get here. */
static uint64_t choose(const race_choice *choice) {
    static const uint64_t table[2] = {3, 5};
    uint8_t bytes[3];
    memcpy(bytes, &choice->on, sizeof bytes);
    CHECK((bytes[0] | bytes[1] | bytes[2]) <= 1);
    return table[choice->on] + table[choice->sure[0]] + table[choice->sure[1]];
}

uint64_t race_flags(const bool *flags, uint8_t n, race_choice *choices, race_choice one) {
    uint64_t total = choose(&one);
    for (uint64_t i = 0; flags != NULL && i < n; i++) {
        uint8_t byte;
        memcpy(&byte, &flags[i], 1);
        CHECK(byte <= 1);
        total += flags[i];
    }
    for (uint64_t i = 0; choices != NULL && i < n % 7u; i++) {
        total += choose(&choices[i]);
    }
    calls++;
    return total;
}

struct all {
    uint64_t data;
    uint16_t n;
    uint64_t text, pairs;
    int8_t k;
    uint64_t out;
};
struct sizes {
    uint64_t data, a, b, out;
    race_pair pair;
    bool flag;
};

struct flags {
    uint64_t flags;
    uint8_t n;
    uint64_t choices;
    race_choice one;
};

static uint8_t *slot; /* in the middle of `region`, whose edges must stay as they are */
static uint8_t *region;

static enum cafe_status try_all(struct all frame) {
    memset(slot + CAFE_SLOT_FRAME, 'x', SLOT_BYTES - CAFE_SLOT_FRAME); /* no NUL anywhere */
    memcpy(slot + CAFE_SLOT_FRAME, &frame, sizeof frame);
    return shim_call((struct cafe_slot *)(void *)slot, SLOT_BYTES, 0);
}

static enum cafe_status try_sizes(struct sizes frame) {
    memcpy(slot + CAFE_SLOT_FRAME, &frame, sizeof frame);
    return shim_call((struct cafe_slot *)(void *)slot, SLOT_BYTES, 1);
}

static void bad_flags(void) {
    struct flags frame = {.flags = 1, .n = 20, .choices = 1};
    memset(slot + CAFE_SLOT_FRAME, 0xfe, SLOT_BYTES - CAFE_SLOT_FRAME);
    memset(&frame.one, 0x82, sizeof frame.one);
    memcpy(slot + CAFE_SLOT_FRAME, &frame, sizeof frame);
    CHECK(shim_call((struct cafe_slot *)(void *)slot, SLOT_BYTES, 2) == CAFE_OK);
    CHECK(slot[CAFE_SLOT_FRAME + 48 + 20] == 0xfe); /* in only: not written back */
}

static void bad_frames(void) {
    const uint64_t most = ~0ull;
    CHECK(try_all((struct all){.n = 100, .data = 1, .k = 3, .pairs = 1, .out = 1}) == CAFE_OK);
    CHECK(try_all((struct all){.n = 65535, .data = 1}) == CAFE_E_LIMIT);
    CHECK(try_all((struct all){.n = 65535}) == CAFE_OK); /* null: its count does not matter */
    CHECK(try_all((struct all){.n = 10, .data = 2}) == CAFE_E_MALFORMED);
    CHECK(try_all((struct all){.n = 10, .out = most}) == CAFE_E_MALFORMED);
    CHECK(try_all((struct all){.k = -1, .pairs = 1}) == CAFE_E_MALFORMED);
    CHECK(try_all((struct all){.k = -128, .pairs = 1}) == CAFE_E_MALFORMED);
    CHECK(try_all((struct all){.text = 65}) == CAFE_E_MALFORMED);
    CHECK(try_all((struct all){.text = most}) == CAFE_E_MALFORMED);
    CHECK(try_all((struct all){.text = 64}) == CAFE_E_MALFORMED); /* not terminated */
    CHECK(try_all((struct all){.text = 1}) == CAFE_E_MALFORMED);
    CHECK(try_sizes((struct sizes){.data = 1, .a = 1ull << 32, .b = 1ull << 32}) == CAFE_E_MALFORMED);
    CHECK(try_sizes((struct sizes){.data = 1, .a = 1ull << 31, .b = 2}) == CAFE_E_LIMIT);
    CHECK(try_sizes((struct sizes){.data = 1, .a = 1ull << 61, .b = 1}) == CAFE_E_LIMIT); /* times 8 wraps */
    CHECK(try_sizes((struct sizes){.data = 1, .a = most, .b = most}) == CAFE_E_MALFORMED);
    CHECK(try_sizes((struct sizes){.out = 1, .a = most, .b = 1}) == CAFE_E_MALFORMED);
    CHECK(try_sizes((struct sizes){.out = 1, .a = most / 2, .b = 1}) == CAFE_E_LIMIT);
    CHECK(try_sizes((struct sizes){.a = most, .b = most}) == CAFE_OK);
    const uint64_t room = (SLOT_BYTES - 128) / 8; /* fixed part: 80 to 128 */
    CHECK(try_sizes((struct sizes){.data = 1, .a = room, .b = 1}) == CAFE_OK);
    CHECK(try_sizes((struct sizes){.data = 1, .a = room + 1, .b = 1}) == CAFE_E_LIMIT);
    const uint64_t out_room = (SLOT_BYTES - 128) / 2;
    CHECK(try_sizes((struct sizes){.out = 1, .a = out_room, .b = 0}) == CAFE_OK);
    CHECK(try_sizes((struct sizes){.out = 1, .a = out_room, .b = 1}) == CAFE_E_LIMIT);
    CHECK(shim_call((struct cafe_slot *)(void *)slot, SLOT_BYTES, 3) == CAFE_E_ENTRY);
    bad_flags();
}

static uint64_t edge_word(uint64_t *state) {
    static const uint64_t edges[] = {0,          1,          2,     63,        64,         65,
                                     0xff,       0x7f,       0x80,  0xffff,    1ull << 31, 1ull << 32,
                                     1ull << 61, 1ull << 63, ~0ull, ~0ull - 15};
    return hostile_word(state, edges, sizeof edges / sizeof *edges);
}

static volatile bool stop;
static uint64_t rewrites; /* atomic */

static void *rewrite(void *argument) {
    uint64_t state = 99;
    (void)argument;
    while (!stop) {
        const uint64_t place = CAFE_SLOT_FRAME + 8 * (random_word(&state) % 7);
        __atomic_store_n((uint64_t *)(void *)(slot + place), edge_word(&state), __ATOMIC_RELAXED);
        (void)__atomic_add_fetch(&rewrites, 1, __ATOMIC_RELAXED);
        slot[128 + random_word(&state) % (SLOT_BYTES - 128)] = (uint8_t)(state % 3);
    }
    return NULL;
}

static void attack(double seconds, bool racing) {
    uint64_t state = 1234567, count = 0;
    pthread_t writer;
    struct timespec start, now;
    stop = false;
    CHECK(!racing || pthread_create(&writer, NULL, rewrite, NULL) == 0);
    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        for (int i = 0; i < 1000; i++, count++) {
            for (uint64_t at = 0; !racing && at < 56; at += 8) {
                const uint64_t word = edge_word(&state);
                memcpy(slot + CAFE_SLOT_FRAME + at, &word, sizeof word);
            }
            const enum cafe_status status =
                shim_call((struct cafe_slot *)(void *)slot, SLOT_BYTES, (uint32_t)(random_word(&state) % 3));
            CHECK(status == CAFE_OK || status == CAFE_E_MALFORMED || status == CAFE_E_LIMIT);
        }
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((double)(now.tv_sec - start.tv_sec) + (double)(now.tv_nsec - start.tv_nsec) / 1e9 < seconds ||
             (racing && __atomic_load_n(&rewrites, __ATOMIC_RELAXED) < LEAST_REWRITES));
    stop = true;
    if (racing) {
        (void)pthread_join(writer, NULL);
    }
    printf("%s: %lu frames, %lu calls, %lu rewrites\n", racing ? "racing" : "random", count, calls, rewrites);
    CHECK(calls > count / 100);
}

int main(int argc, char **argv) {
    const double seconds = argc > 1 ? atof(argv[1]) : 1;
    region = aligned_alloc(4096, 3 * SLOT_BYTES);
    CHECK(region != NULL);
    memset(region, 0x77, 3 * SLOT_BYTES);
    slot = region + SLOT_BYTES;
    memset(slot, 0, SLOT_BYTES);
    bad_frames();
    attack(seconds / 2, false);
    calls = 0;
    attack(seconds, true);
    for (uint32_t i = 0; i < SLOT_BYTES; i++) {
        CHECK(region[i] == 0x77 && region[2 * SLOT_BYTES + i] == 0x77);
    }
    free(region);
    puts("all good");
    return 0;
}
