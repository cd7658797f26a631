/* kit.h - an interface with a bit of everything, for cafe fuzz to attack. */
#ifndef FUZZ_KIT_H
#define FUZZ_KIT_H

#include "cafe.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kit_pack {
    const uint8_t *data CAFE_IN(length);
    uint32_t length;
    const char *name CAFE_STR(32);
};

CAFE_CALLBACK CAFE_ON_ERROR(-1) int kit_next(uint8_t *record CAFE_OUT(size), size_t size,
                                             int64_t *left CAFE_OUT(1));
CAFE_CALLBACK CAFE_ON_ERROR() void kit_log(const char *text CAFE_STR(100));

CAFE_SECRET CAFE_SERIAL CAFE_ON_ERROR(-1) int kit_sum(const uint8_t *data CAFE_IN(rows *columns),
                                                      uint32_t rows, uint64_t columns, bool flag,
                                                      uint64_t *out CAFE_OUT(rows));
CAFE_SECRET CAFE_ON_ERROR(-1) int64_t
    kit_name(const char *text CAFE_STR(16), int32_t n, uint8_t *mixed CAFE_INOUT(n + 1));
CAFE_SECRET CAFE_ON_ERROR(-1) int kit_records(uint32_t most, const struct kit_pack *pack CAFE_IN(1));

#endif
