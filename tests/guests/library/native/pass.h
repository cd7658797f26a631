/* The interface of pass.c: what a program can pass, and what its callbacks are passed. */
#ifndef PASS_H
#define PASS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cafe.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PASS_NAME 24

typedef struct {
    uint16_t id;
    struct {
        uint8_t rgb[3];
        double weight;
    } spots[2];
    int32_t grid[2][3];
} pass_shape; /* structs and arrays in a struct by value */

struct pass_job {
    const char *name CAFE_STR(PASS_NAME);
    const uint32_t *values CAFE_IN(count);
    uint32_t count;
    uint32_t *squares CAFE_OUT(count * sizeof(uint32_t) / 4);
    void *tag CAFE_OPAQUE;
    pass_shape *shapes CAFE_INOUT(shape_count);
    uint8_t shape_count;
};

CAFE_SECRET CAFE_ON_ERROR(-1) int64_t
    pass_shapes(pass_shape one, const pass_shape *more CAFE_IN(n), uint8_t n);
CAFE_SECRET CAFE_ON_ERROR(-1) int64_t pass_job(struct pass_job *job CAFE_INOUT(1));
CAFE_SECRET CAFE_ON_ERROR(0) uint64_t
    pass_large(const uint8_t *in CAFE_IN(rows *row_bytes), uint32_t rows, uint64_t row_bytes,
               uint8_t *out CAFE_OUT(rows + extra), uint32_t extra);
CAFE_SECRET CAFE_ON_ERROR(-1) int pass_records(uint32_t most);
CAFE_SECRET CAFE_ON_ERROR(-1) int pass_down(int depth);
CAFE_SECRET CAFE_ON_ERROR(-9) int pass_fail(int how);

CAFE_CALLBACK CAFE_ON_ERROR(-2) int pass_next(char *text CAFE_OUT(room), uint32_t room,
                                              bool *last CAFE_OUT(1));
CAFE_CALLBACK CAFE_ON_ERROR(-3) int pass_again(int depth);
CAFE_CALLBACK CAFE_ON_ERROR(-4) int pass_throw(int value);
CAFE_CALLBACK CAFE_ON_ERROR(-5) int pass_absent(void);

#ifdef __cplusplus
}
#endif

#endif
