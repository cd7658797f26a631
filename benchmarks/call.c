/* call.c - a public program that times calls of a secret function through its stub, on one core. */
#define _GNU_SOURCE
#include <string.h>

#include "echo.h"
#include "latency.h"

static uint8_t in[64], out[64];

static void copy_64(void) {
    if (echo64(in, out) != 7) {
        fprintf(stderr, "the call failed: %s\n", cafe_error_message());
        exit(1);
    }
}

/* Which: "empty" or "64". */
int main(int argc, char **argv) {
    size_t count = argc > 1 ? (size_t)atoi(argv[1]) : 100000;
    latency_pin(latency_core("BENCH_CORE_0", 0));
    memset(in, 7, sizeof in);
    if (argc > 2 && strcmp(argv[2], "empty") == 0) {
        return latency_measure(count, nothing);
    }
    int failed = latency_measure(count, copy_64);
    return failed || memcmp(in, out, sizeof in) != 0;
}
