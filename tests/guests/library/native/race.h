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

typedef struct {
    uint16_t number;
    bool on, sure[2];
    uint32_t kind;
} race_choice;

CAFE_SECRET uint64_t race_all(const uint8_t *data CAFE_IN(n), uint16_t n, const char *text CAFE_STR(64),
                              race_pair *pairs CAFE_INOUT(k + 1), int8_t k, uint32_t *out CAFE_OUT(n % 50));
CAFE_SECRET uint64_t race_sizes(const uint64_t *data CAFE_IN(a *b), uint64_t a, uint64_t b,
                                uint16_t *out CAFE_OUT(a + b), race_pair pair, bool flag);
CAFE_SECRET uint64_t race_flags(const bool *flags CAFE_IN(n), uint8_t n,
                                race_choice *choices CAFE_INOUT(n % 7), race_choice one);

#endif
