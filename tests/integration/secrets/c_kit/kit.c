/* What an ordinary C program does. */
#include "kit.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <wchar.h>

static int64_t constructed = 1;
static _Thread_local int64_t counter = 41;
static _Thread_local char zeros[100];
static _Thread_local int64_t *self = &constructed;

__attribute__((constructor(200))) static void second(void) {
    constructed = constructed * 10 + 3;
}

__attribute__((constructor(150))) static void first(void) {
    constructed = constructed * 10 + 2;
}

int64_t kit_constructed(void) {
    return constructed;
}

int64_t kit_thread_local(void) {
    zeros[99]++;
    return ++counter * 1000 + zeros[99] + (self == &constructed ? 500 : 0);
}

static int ascending(const void *a, const void *b) {
    double x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static int descending(const void *a, const void *b) {
    return ascending(b, a);
}

/* a table of pointers in constant data: relocations */
static int (*const orders[])(const void *, const void *) = {ascending, descending};

uint32_t kit_sort(double *values, uint32_t n, uint32_t which) {
    qsort(values, n, sizeof *values, orders[which & 1]);
    return n;
}

int32_t kit_format(double d, int32_t i, char *text, uint32_t size) {
    return snprintf(text, size, "%s|%d|%.15g|%a|%08x|%+.3e|%-6s|%Lg", "text", i, d, d, (unsigned)i, d, "ab",
                    (long double)d * 3);
}

double kit_math(double x, uint32_t which) {
    switch (which) {
    case 0:
        return sin(x);
    case 1:
        return exp(x);
    case 2:
        return pow(x, 1.7);
    case 3:
        return tgamma(x);
    case 4:
        return fmod(x * 1e10, 7);
    case 5:
        return strtod("3.14159e-3 and more", NULL);
    default:
        return (double)sqrtl((long double)x);
    }
}

int32_t kit_jump(int32_t which, int32_t x) {
    switch (which) {
    case 0:
        return x + 1;
    case 1:
        return x * 3;
    case 2:
        return x ^ 0x55;
    case 3:
        return x - 9;
    case 4:
        return x / 3;
    case 5:
        return -x;
    case 6:
        return x % 7;
    default:
        return 99;
    }
}

static uint64_t step(uint64_t *seed) {
    *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
    return *seed >> 33;
}

/* Blocks of many sizes, checked to keep their contents; returns 0, or where it went wrong. */
uint64_t kit_heap(uint32_t rounds, uint64_t seed) {
    static unsigned char *blocks[64];
    static size_t sizes[64];
    for (uint32_t round = 1; round <= rounds; round++) {
        size_t i = step(&seed) % 64, size = step(&seed) % (step(&seed) % 16 ? 600 : 20000);
        for (size_t j = 0; blocks[i] && j < sizes[i]; j++)
            if (blocks[i][j] != (unsigned char)(i + j))
                return round;
        if (step(&seed) % 3 && blocks[i]) {
            unsigned char *larger = realloc(blocks[i], size + 1);
            if (!larger)
                continue;
            blocks[i] = larger;
        } else {
            free(blocks[i]);
            blocks[i] = step(&seed) % 2 ? malloc(size + 1) : calloc(1, size + 1);
        }
        sizes[i] = blocks[i] ? size : 0;
        for (size_t j = 0; j < sizes[i]; j++)
            blocks[i][j] = (unsigned char)(i + j);
    }
    for (size_t i = 0; i < 64; i++) {
        free(blocks[i]);
        blocks[i] = NULL;
    }
    char *most = malloc(1000000); /* all of it has become one block again */
    free(most);
    return most ? 0 : UINT64_MAX;
}

uint64_t kit_aligned(uint64_t align, uint64_t bytes) {
    void *a = aligned_alloc(align, bytes), *b = NULL;
    int failed = posix_memalign(&b, align, bytes);
    uint64_t bad = !a || failed || (uint64_t)(uintptr_t)a % align || (uint64_t)(uintptr_t)b % align;
    if (a && !failed) {
        memset(a, 1, bytes);
        memset(b, 2, bytes);
    }
    free(a);
    free(failed ? NULL : b);
    return bad;
}

uint64_t kit_huge(void) {
    volatile size_t huge = (size_t)-1 / 2;
    void *a = malloc(huge), *b = calloc(huge, 4), *c = malloc(2 << 20), *d = aligned_alloc(64, huge);
    return (a != NULL) | (uint64_t)(b != NULL) << 1 | (uint64_t)(c != NULL) << 2 | (uint64_t)(d != NULL) << 3;
}

int32_t kit_random(uint8_t *bytes, uint32_t n) {
    if (n > 16 && getentropy(bytes, 16))
        return -1;
    return (int32_t)getrandom(bytes + (n > 16 ? 16 : 0), n > 16 ? n - 16 : n, 0);
}

__attribute__((target_clones("avx2", "default"))) int64_t kit_versions(const int32_t *values, uint32_t n) {
    int64_t sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += (int64_t)values[i] * values[i];
    return sum;
}

int32_t kit_wide(char *text, uint32_t size) {
    return snprintf(text, size, "%ls|%lc", L"wide", L'c');
}
