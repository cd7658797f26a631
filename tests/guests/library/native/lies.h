/* The interface of lies_secret.c and lies_serve.c: what either side may lie about. */
#ifndef LIES_H
#define LIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cafe.h"

struct lies_request {
    const uint16_t *in CAFE_IN(n);
    uint32_t n;
    bool sure;
    int16_t m;
    uint32_t *out CAFE_OUT(m * 2);
    const char *name CAFE_STR(16);
    uint64_t *both CAFE_INOUT(n % 5);
    void *handle CAFE_OPAQUE;
    uint8_t tail;
};

typedef struct {
    uint8_t a;
    uint32_t b;
    bool c;
} lies_pair;

typedef struct {
    uint64_t words[7];
} lies_full; /* as large as a result in the slot can be */

typedef struct {
    lies_pair pairs[9];
} lies_large;

CAFE_SECRET uint64_t lies_deep(struct lies_request *request CAFE_INOUT(1),
                               const struct lies_request *only CAFE_IN(1));
CAFE_SECRET uint64_t lies_bulk(const uint8_t *in CAFE_IN(n), uint64_t n, uint16_t *out CAFE_OUT(m *k),
                               uint64_t m, uint32_t k, uint64_t *both CAFE_INOUT(n + m));
CAFE_SECRET uint32_t lies_ask(uint16_t n, uint8_t what);
CAFE_SECRET lies_full lies_fill(uint8_t with);
CAFE_SECRET uint8_t lies_one(void);
CAFE_SECRET void lies_none(void);
CAFE_SECRET CAFE_SERIAL uint32_t lies_turn(uint32_t turns);

CAFE_CALLBACK CAFE_ON_ERROR(-1) int32_t
    lies_read(uint8_t *into CAFE_OUT(n *each), uint32_t n, uint64_t each, bool *more CAFE_OUT(1),
              lies_pair *both CAFE_INOUT(n % 4), const char *name CAFE_STR(16));
CAFE_CALLBACK CAFE_ON_ERROR(false) bool lies_agree(bool is, lies_pair pair, void *handle CAFE_OPAQUE);
CAFE_CALLBACK CAFE_ON_ERROR(0) lies_large lies_much(const lies_pair *pairs CAFE_IN(n), int8_t n);
CAFE_CALLBACK void lies_must(void);

#endif
