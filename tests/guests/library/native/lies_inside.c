/* lies_inside.c - the secret functions of lies.h: they check that what they were given fits and keeps still,
 * and leave as much of their own behind as they can. */
#include "lies_inside.h"

#include <string.h>

uint64_t inside_calls;
const void *inside_own[INSIDE_OWN];

static void request_holds(const struct lies_request *request) {
    uint8_t sure;
    memcpy(&sure, &request->sure, 1);
    CHECK(sure <= 1);
    CHECK(request->name == NULL || strlen(request->name) < 16);
    CHECK(request->out == NULL || request->m >= 0);
    for (int i = 0; request->out != NULL && i < request->m * 2; i++) {
        CHECK(request->out[i] == 0);
        request->out[i] = (uint32_t)i;
    }
    if (request->both != NULL) {
        memset(request->both, 0x22, request->n % 5 * sizeof *request->both);
    }
}

uint64_t lies_deep(struct lies_request *request, const struct lies_request *only) {
    const uint64_t in_bytes = request == NULL ? 0 : request->n * sizeof *request->in;
    const uint64_t before = request == NULL ? 0 : sum(request->in, in_bytes);
    inside_calls++;
    if (only != NULL) {
        request_holds(only);
    }
    if (request == NULL) {
        return 0;
    }
    request_holds(request);
    CHECK(sum(request->in, in_bytes) == before);
    inside_own[0] = request->in;
    inside_own[1] = request->out;
    inside_own[2] = request->both;
    inside_own[3] = request;
    const struct lies_request left = {.in = (const uint16_t *)(const void *)request,
                                      .n = request->n + 1, /* as a size it would be wrong now */
                                      .sure = true,
                                      .m = 32767};
    memset(request, 0xee, sizeof *request);
    request->in = left.in;
    request->out = (uint32_t *)(void *)request;
    request->name = (const char *)request;
    request->both = (uint64_t *)(void *)request;
    request->handle = request;
    request->n = left.n;
    request->m = left.m;
    request->sure = left.sure;
    request->tail = 1;
    return before;
}

uint64_t lies_bulk(const uint8_t *in, uint64_t n, uint16_t *out, uint64_t m, uint32_t k, uint64_t *both) {
    const uint64_t before = sum(in, n), both_count = n + m;
    inside_calls++;
    for (uint64_t i = 0; out != NULL && i < m * k; i++) {
        CHECK(out[i] == 0);
        out[i] = 7;
    }
    for (uint64_t i = 0; both != NULL && i < both_count; i++) {
        both[i]++;
    }
    CHECK(sum(in, n) == before);
    return before;
}

static void pair_holds(const lies_pair *pair) {
    uint8_t raw[sizeof *pair];
    memcpy(raw, pair, sizeof raw);
    CHECK(raw[1] == 0 && raw[2] == 0 && raw[3] == 0 && raw[8] <= 1 && raw[9] == 0 && raw[11] == 0);
}

static uint32_t ask_read(uint16_t n, uint64_t each, const char *name) {
    uint8_t *into = malloc(n * each);
    bool *more = malloc(1);
    lies_pair *both = malloc(n % 4u * sizeof *both);
    CHECK(into != NULL && more != NULL && both != NULL);
    memset(both, 0xee, n % 4u * sizeof *both);
    *more = false;
    const int32_t got = lies_read(into, n, each, more, both, name);
    uint8_t said;
    memcpy(&said, more, 1);
    CHECK(said <= 1);
    for (uint16_t i = 0; got != -1 && i < n % 4; i++) {
        pair_holds(&both[i]);
    }
    free(into);
    free(more);
    free(both);
    return (uint32_t)got;
}

static uint32_t ask_agree(void) {
    lies_pair pair;
    memset(&pair, 0xee, sizeof pair);
    memset(&pair.c, 1, 1);
    const bool said = lies_agree(true, pair, (void *)(uintptr_t)4711);
    uint8_t byte;
    memcpy(&byte, &said, 1);
    CHECK(byte <= 1);
    return byte;
}

static uint32_t ask_much(uint16_t n) {
    lies_pair pairs[20];
    memset(pairs, 0xee, sizeof pairs);
    const lies_large large = lies_much(pairs, (int8_t)(n % 20));
    for (int i = 0; i < 9; i++) {
        pair_holds(&large.pairs[i]);
    }
    return large.pairs[8].b;
}

uint32_t lies_ask(uint16_t n, uint8_t what) {
    inside_calls++;
    switch (what % 8) {
    case 0:
        return ask_read(n, 1, "name");
    case 1:
        return ask_agree();
    case 2:
        return ask_much(n);
    case 3:
        return ask_read(0, 0, "fifteen letters"); /* as long as it may be */
    case 4:
        return ask_read(0, 0, "sixteen letters!") + 100;
    case 5: /* none of these can be in a slot, or in memory */
        return (uint32_t)(lies_read(&(uint8_t){0}, 1u << 31, 1u << 31, NULL, NULL, NULL) +
                          lies_read(&(uint8_t){0}, ~0u, ~0ull, NULL, NULL, NULL) +
                          lies_read(&(uint8_t){0}, 2, 1ull << 63, NULL, NULL, NULL));
    case 6:
        return lies_much(&(lies_pair){0}, -1).pairs[0].b; /* a negative count */
    default:
        return (uint32_t)lies_read(NULL, ~0u, ~0ull, NULL, NULL, NULL);
    }
}

lies_full lies_fill(uint8_t with) {
    lies_full full;
    memset(&full, with, sizeof full);
    return full;
}

uint8_t lies_one(void) {
    return 1;
}

void lies_none(void) {
}

/* Not atomic: only one at a time counts right. */
uint32_t lies_turn(uint32_t turns) {
    static volatile uint32_t counted;
    for (uint32_t i = 0; i < turns; i++) {
        counted = counted + 1;
    }
    if (turns == 1) {
        lies_must();
    }
    return counted;
}
