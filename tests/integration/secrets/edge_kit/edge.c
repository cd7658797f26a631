/* edge.c - the secret functions of edge.h. */
#include "edge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define PATTERN 0xc5

int64_t edge_call_back(uint32_t what, uint32_t n, uint8_t *got, int32_t *error) {
    uint8_t into[64] = {0};
    if (got == NULL || error == NULL)
        return -2;
    errno = 0;
    const int64_t result = edge_ask(what, into, n % 65);
    *error = errno;
    memcpy(got, into, sizeof into);
    errno = 0;
    return result;
}

static uint64_t length(const char *text) {
    volatile const char *at = text;
    uint64_t count = 0;
    while (at[count] != 0)
        count++;
    return count;
}

uint64_t edge_text(const char *text) {
    if (text == NULL)
        return 0;
    const uint64_t before = length(text);
    for (volatile int i = 0; i < 500; i++)
        continue;
    return before << 32 | length(text);
}

uint64_t edge_add(const uint8_t *in, uint8_t *out, uint64_t rows, uint64_t columns) {
    if (in == NULL || out == NULL)
        return UINT64_MAX;
    uint64_t changed = 0;
    for (uint64_t i = 0; i < rows * columns; i++)
        out[i] = (uint8_t)(in[i] + 1);
    for (uint64_t i = 0; i < rows * columns; i++)
        changed += out[i] != (uint8_t)(in[i] + 1);
    return changed;
}

uint32_t edge_fill(uint8_t *out, uint32_t n) {
    memset(out, PATTERN, n);
    return n;
}

uint32_t edge_leave(uint8_t *out, uint32_t n) {
    volatile uint8_t stack[2048];
    uint8_t *heap = malloc(2048);
    for (uint32_t i = 0; i < sizeof stack; i++)
        stack[i] = PATTERN;
    if (heap != NULL)
        memset(heap, PATTERN, 2048);
    free(heap);
    __asm__ volatile("movdqu %0, %%xmm0\n\tmovdqu %0, %%xmm1\n\tmovdqu %0, %%xmm15" : : "m"(stack[0]));
    return out == NULL ? n : 0;
}

struct edge_padded edge_holes(uint8_t a, uint64_t b) {
    struct edge_padded result;
    memset(&result, PATTERN, sizeof result);
    result.a = a;
    result.b = b;
    result.c = 1;
    return result;
}

uint64_t edge_canary(uint32_t turns, uint8_t *bytes) {
    uint64_t canary;
    for (volatile uint32_t i = 0; i < turns; i++)
        continue;
    if (getrandom(bytes, 32, 0) != 32)
        return 0;
    __asm__("movq %%fs:0x28, %0" : "=r"(canary));
    return canary;
}

static uint32_t deeper(uint32_t depth) // NOLINT: that it never ends is what it is for
{
    volatile uint8_t space[512];
    space[0] = (uint8_t)depth;
    return depth == 0 ? 0 : deeper(depth + 1) + space[0];
}

static uint32_t exhaust(void) {
    while (malloc(10000) != NULL)
        continue;
    return *(volatile uint32_t *)malloc(20000); /* as a program does that does not look */
}

uint32_t edge_fail(uint32_t how) {
    switch (how) {
    case 0:
        for (volatile int on = 1; on;)
            continue;
        return 0;
    case 1:
        return *(volatile uint32_t *)(uintptr_t)(how - 1);
    case 2:
        __builtin_trap();
    case 3:
        return deeper(1);
    case 4:
        return exhaust();
    case 5:
        abort();
    default:
        return how;
    }
}

uint32_t edge_echo(uint32_t value) {
    return value;
}
