/* The interface of the library tests: one function for each way a parameter can cross. */
#ifndef SAMPLE_H
#define SAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cafe.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SAMPLE_TEXT 64

typedef struct {
    uint8_t tag;
    uint32_t value;
    uint16_t list[3];
} sample_record;

struct sample_big {
    uint64_t words[16];
};

CAFE_SECRET CAFE_ON_ERROR(-1) int64_t sample_sum(const uint32_t *values CAFE_IN(count), size_t count);
CAFE_SECRET CAFE_ON_ERROR(-2) int sample_transform(const void *in CAFE_IN(n), size_t n,
                                                   void *out CAFE_OUT(n + 16),
                                                   sample_record *state CAFE_INOUT(1));
CAFE_SECRET CAFE_ON_ERROR(0) uint32_t sample_text(const char *text CAFE_STR(SAMPLE_TEXT));
CAFE_SECRET CAFE_ON_ERROR(0) struct sample_big sample_widen(sample_record record, bool flag, double factor);
CAFE_SECRET CAFE_ON_ERROR(NAN) long double sample_exact(long double x, float y);
CAFE_SECRET CAFE_ON_ERROR(true) bool sample_flip(bool value);
CAFE_SECRET CAFE_ON_ERROR() void sample_nothing(void);
CAFE_SECRET int sample_fatal(int x);
CAFE_SECRET CAFE_ON_ERROR(0) uint64_t sample_handle(void *handle CAFE_OPAQUE);
CAFE_SECRET CAFE_ON_ERROR(-1) int sample_matrix(int32_t (*rows)[4] CAFE_INOUT(count), int16_t count,
                                                float scale);
CAFE_SECRET CAFE_ON_ERROR(-1) int sample_padded(sample_record *out CAFE_OUT(n), uint32_t n);
CAFE_SECRET CAFE_ON_ERROR(-1) int sample_sleep(uint32_t milliseconds);
CAFE_SECRET CAFE_ON_ERROR(-1) int sample_product(const uint8_t *data CAFE_IN(a *b), uint64_t a, uint64_t b);

#ifdef __cplusplus
}
#endif

#endif
