/* fuzz.h - what the fuzz targets share: taking bytes of the input apart, and ending a run that went wrong. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What libFuzzer calls, and replay.c. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz_input {
    const uint8_t *data;
    size_t left;
};

/* Take the next bytes; what the input is too short for is zero. */
static inline void fuzz_take(struct fuzz_input *input, void *into, size_t bytes) {
    const size_t have = bytes < input->left ? bytes : input->left;
    memset(into, 0, bytes);
    memcpy(into, input->data, have);
    input->data += have;
    input->left -= have;
}

static inline uint8_t fuzz_byte(struct fuzz_input *input) {
    uint8_t value;
    fuzz_take(input, &value, sizeof value);
    return value;
}

static inline uint64_t fuzz_word(struct fuzz_input *input) {
    uint64_t value;
    fuzz_take(input, &value, sizeof value);
    return value;
}

#define FUZZ_NEED(condition)                                                                                 \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            (void)fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);             \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#endif
