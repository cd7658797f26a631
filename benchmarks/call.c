/* call.c - a public program that times calls of a secret function through its stub. */
#define _GNU_SOURCE
#include <string.h>

#include "echo.h"
#include "latency.h"

int main(int argc, char **argv) {
    size_t count = argc > 1 ? (size_t)atoi(argv[1]) : 100000, warm = 10000;
    uint64_t *cycles = calloc(count, sizeof *cycles);
    uint8_t in[64], out[64];
    latency_pin(0);
    memset(in, 7, sizeof in);
    for (size_t i = 0; cycles != NULL && i < warm; i++) {
        if (echo64(in, out) != 7 || memcmp(in, out, sizeof in) != 0) {
            fprintf(stderr, "the call failed: %s\n", cafe_error_message());
            return 1;
        }
    }
    if (cycles == NULL) {
        return 1;
    }
    uint64_t start_ns = latency_now_ns(), start = __rdtsc();
    for (size_t i = 0; i < count; i++) {
        uint64_t before = __rdtsc();
        int result = echo64(in, out);
        cycles[i] = __rdtsc() - before;
        if (result != 7) {
            fprintf(stderr, "the call failed: %s\n", cafe_error_message());
            return 1;
        }
    }
    latency_report(cycles, count, __rdtsc() - start, latency_now_ns() - start_ns);
    return 0;
}
