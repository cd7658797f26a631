/* The interface of race.c. */
#ifndef RACE_H
#define RACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cafe.h"

typedef struct {
    uint32_t a, b;
} race_pair;

CAFE_SECRET uint64_t race_all(const uint8_t *data CAFE_IN(n), uint16_t n, const char *text CAFE_STR(64),
                              race_pair *pairs CAFE_INOUT(k + 1), int8_t k, uint32_t *out CAFE_OUT(n % 50));
CAFE_SECRET uint64_t race_sizes(const uint64_t *data CAFE_IN(a *b), uint64_t a, uint64_t b,
                                uint16_t *out CAFE_OUT(a + b), race_pair pair, bool flag);

#endif
