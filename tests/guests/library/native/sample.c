/* The secret side of sample.h. */
#include "sample.h"

#include <string.h>
#include <time.h>

int64_t sample_sum(const uint32_t *values, size_t count) {
    int64_t sum = 0;
    for (size_t i = 0; values != NULL && i < count; i++) {
        sum += values[i];
    }
    return values == NULL ? -7 : sum;
}

int sample_transform(const void *in, size_t n, void *out, sample_record *state) {
    uint8_t *target = out;
    for (size_t i = 0; out != NULL && i < n + 16; i++) {
        if (target[i] != 0) {
            return -99; /* outputs are zero before the call */
        }
        target[i] = (uint8_t)(i < n ? ((const uint8_t *)in)[i] ^ 0x5a : i);
    }
    if (state != NULL) {
        state->value += (uint32_t)n;
        state->list[2] = 77;
    }
    return (int)n;
}

uint32_t sample_text(const char *text) {
    uint32_t hash = 2166136261u;
    for (; text != NULL && *text != 0; text++) {
        hash = (hash ^ (uint8_t)*text) * 16777619u;
    }
    return text == NULL ? 1 : hash;
}

struct sample_big sample_widen(sample_record record, bool flag, double factor) {
    struct sample_big big = {{0}};
    for (uint64_t i = 0; i < 16; i++) {
        big.words[i] = (uint64_t)(factor * (double)record.value) + record.list[i % 3] + flag + i;
    }
    return big;
}

long double sample_exact(long double x, float y) {
    return x * 3 + (long double)y;
}

bool sample_flip(bool value) {
    return !value;
}

void sample_nothing(void) {
}

int sample_fatal(int x) {
    return x + 1;
}

uint64_t sample_handle(void *handle) {
    return (uint64_t)(uintptr_t)handle;
}

int sample_matrix(int32_t (*rows)[4], int16_t count, float scale) {
    for (int16_t i = 0; i < count; i++) {
        for (int j = 0; j < 4; j++) {
            rows[i][j] = (int32_t)((float)rows[i][j] * scale);
        }
    }
    return count;
}

int sample_padded(sample_record *out, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        memset(&out[i], 0xee, sizeof out[i]); /* as stale stack would look */
        out[i].tag = 1;
        out[i].value = i;
        memset(out[i].list, 2, sizeof out[i].list);
    }
    return 0;
}

int sample_sleep(uint32_t milliseconds) {
    const struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    return nanosleep(&time, NULL);
}

int sample_product(const uint8_t *data, uint64_t a, uint64_t b) {
    return data == NULL ? 0 : (int)(a * b);
}
