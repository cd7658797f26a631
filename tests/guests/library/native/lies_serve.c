/* lies_serve.c - a hostile enclave against the public stubs' serving of callbacks. */
#include "cafe_guest.h"
#include "hostile.h"
#include "lies.h"

#define SLOT_BYTES 4096u

static const uint64_t edges[] = {0,          1,     2,          3,          15,         16,
                                 17,         0xfe,  4000,       4096,       1ull << 32, 1ull << 61,
                                 1ull << 62, ~0ull, ~0ull - 15, 0x7fffffff, 0x80000000};
#define EDGES (sizeof edges / sizeof *edges)

static struct cafe_library *library;
static uint8_t *slot;
static uint64_t served; /* that reached the program's function */

void cafe_register(struct cafe_library *own) {
    library = own;
}

void cafe_call_fail(struct cafe_call *call, enum cafe_status status, const char *detail) {
    (void)detail;
    call->status = status;
}

void cafe_call_check(struct cafe_call *call, bool good) {
    CHECK(call->entry < 100 && !good); /* no call is made here */
}

uint64_t cafe_call_string(struct cafe_call *call, const char *text, uint64_t most) {
    CHECK(call == NULL || text == NULL);
    return most;
}

void cafe_call_enter(struct cafe_call *call, uint64_t fixed_bytes) {
    CHECK(call == NULL && fixed_bytes == 0);
}

void cafe_call_place_bulk(struct cafe_call *call, struct cafe_place *place, const void *pointer,
                          uint64_t bytes) {
    CHECK(call == NULL && place == NULL && pointer == NULL && bytes == 0);
}

void cafe_call_run(struct cafe_call *call) {
    CHECK(call == NULL);
}

void cafe_call_finish(struct cafe_call *call, bool fatal) {
    CHECK(call == NULL && fatal);
}

int32_t lies_read(uint8_t *into, uint32_t n, uint64_t each, bool *more, lies_pair *both, const char *name) {
    const uint64_t bytes = n * each;
    served++;
    for (uint64_t i = 0; into != NULL && i < bytes; i++) {
        CHECK(into[i] == 0);
        into[i] = 9;
    }
    CHECK(name == NULL || strlen(name) < 16);
    const uint64_t before = sum(both, n % 4 * sizeof *both) + sum(name, name == NULL ? 0 : strlen(name));
    for (uint32_t i = 0; both != NULL && i < n % 4; i++) {
        uint8_t truth;
        memcpy(&truth, &both[i].c, 1);
        CHECK(truth <= 1);
    }
    CHECK(before == sum(both, n % 4 * sizeof *both) + sum(name, name == NULL ? 0 : strlen(name)));
    if (both != NULL) {
        memset(both, 0xee, n % 4 * sizeof *both);
    }
    if (more != NULL) {
        CHECK(!*more);
        *more = true;
    }
    return 5;
}

bool lies_agree(bool is, lies_pair pair, void *handle) {
    uint8_t bytes[2];
    memcpy(bytes, &is, 1);
    memcpy(bytes + 1, &pair.c, 1);
    CHECK(bytes[0] <= 1 && bytes[1] <= 1);
    served++;
    return handle != NULL;
}

lies_large lies_much(const lies_pair *pairs, int8_t n) {
    lies_large large;
    CHECK(pairs == NULL || n >= 0);
    served++;
    memset(&large, 0xee, sizeof large);
    large.pairs[8].b = (uint32_t)sum(pairs, pairs == NULL ? 0 : (uint64_t)n * sizeof *pairs);
    return large;
}

static enum cafe_status serve(uint32_t number) {
    struct cafe_callback *callback = &library->binding->callbacks[number];
    struct cafe_call call = {.library = library, .slot = slot, .slot_bytes = SLOT_BYTES};
    callback->serve(&call, callback->function);
    return call.status;
}

struct read {
    uint64_t into;
    uint32_t n;
    uint64_t each, more, both, name;
};

static enum cafe_status try_read(struct read read) {
    memset(slot + CAFE_SLOT_FRAME, 'x', SLOT_BYTES - CAFE_SLOT_FRAME);
    memcpy(slot + CAFE_SLOT_FRAME, &read, sizeof read);
    return serve(0);
}

static void frames(void) {
    const struct read good = {.into = 1, .n = 3, .each = 100, .more = 1, .both = 1};
    static const uint8_t pair[12] = {0xee, 0, 0, 0, 0xee, 0xee, 0xee, 0xee, 0, 0, 0, 0};
    int32_t result;
    CHECK(try_read(good) == CAFE_OK); /* fixed part to 128, pairs at 128, out area at 192 */
    CHECK(slot[192] == 9 && slot[192 + 299] == 9 && slot[192 + 300] == 'x' && slot[496] == 1);
    CHECK(memcmp(slot + 128 + 12, pair, sizeof pair) == 0);
    memcpy(&result, slot + 512, sizeof result);
    CHECK(result == 5 && slot[516] == 'x');
    CHECK(try_read((struct read){.into = 2, .n = 3, .each = 1}) == CAFE_E_MALFORMED);
    CHECK(try_read((struct read){.more = ~0ull}) == CAFE_E_MALFORMED);
    CHECK(try_read((struct read){.name = 16}) == CAFE_E_MALFORMED); /* not terminated */
    CHECK(try_read((struct read){.name = 17}) == CAFE_E_MALFORMED);
    CHECK(try_read((struct read){.into = 1, .n = 1, .each = 4096}) == CAFE_E_MALFORMED);
    CHECK(try_read((struct read){.into = 1, .n = 1u << 31, .each = 1ull << 33}) == CAFE_E_MALFORMED);
    CHECK(try_read((struct read){.into = 1, .n = 2, .each = ~0ull}) == CAFE_E_MALFORMED);
    CHECK(try_read((struct read){.n = ~0u, .each = ~0ull}) == CAFE_OK);
    const uint64_t much[2] = {0, 0};
    memcpy(slot + CAFE_SLOT_FRAME, much, sizeof much);
    CHECK(serve(2) == CAFE_OK && memcmp(slot + 128, pair, sizeof pair) == 0);
    const uint64_t room = SLOT_BYTES - 128 - 16; /* for the buffer and, behind it, the result */
    CHECK(try_read((struct read){.into = 1, .n = 1, .each = room}) == CAFE_OK);
    CHECK(try_read((struct read){.into = 1, .n = 1, .each = room + 1}) == CAFE_E_MALFORMED);
}

static void attempt(uint64_t *state) {
    for (uint64_t at = CAFE_SLOT_FRAME; at < 160; at += 8) {
        const uint64_t word = hostile_word(state, edges, EDGES);
        memcpy(slot + at, &word, sizeof word);
    }
    const enum cafe_status status = serve((uint32_t)(random_word(state) % 3));
    CHECK(status == CAFE_OK || status == CAFE_E_MALFORMED);
}

static void race(uint64_t *state) {
    const enum cafe_status status = serve((uint32_t)(random_word(state) % 3));
    CHECK(status == CAFE_OK || status == CAFE_E_MALFORMED);
}

static void disturb(uint64_t *state) {
    const uint64_t place = CAFE_SLOT_FRAME + 8 * (random_word(state) % 6);
    __atomic_store_n((uint64_t *)(void *)(slot + place), hostile_word(state, edges, EDGES), __ATOMIC_RELAXED);
    slot[128 + random_word(state) % (SLOT_BYTES - 128)] = (uint8_t)(*state % 3);
}

int main(int argc, char **argv) {
    const double seconds = argc > 1 ? atof(argv[1]) : 1;
    struct hostile random = {.attempt = attempt}, racing = {.attempt = race, .disturb = disturb};
    CHECK(library != NULL && library->binding->callback_count == 4);
    CHECK(library->binding->callbacks[3].function == NULL); /* the program has no lies_must */
    slot = malloc(SLOT_BYTES);                              /* so that a sanitizer sees every byte outside */
    CHECK(slot != NULL);
    frames();
    hostile_run(&random, seconds);
    CHECK(served > random.attempts / 100);
    served = 0;
    hostile_run(&racing, seconds);
    printf("racing: %lu frames, %lu calls, %lu rewrites\n", racing.attempts, served, racing.disturbances);
    free(slot);
    puts("all good");
    return 0;
}
