/* cases.c - times the calls that other sandboxes publish: a string there and back, a callback, 24 and 8 KiB.
 */
#define _GNU_SOURCE
#include <string.h>

#include "cases.h"
#include "latency.h"

static uint8_t in[IN_BYTES], out[OUT_BYTES];

int32_t host_add(int32_t a, int32_t b) {
    return a + b;
}

static void require(int good) {
    if (!good) {
        fprintf(stderr, "a wrong answer\n");
        exit(1);
    }
}

static void echo_hello(void) {
    char copy[TEXT_BYTES];
    echo_text("hello\n", copy);
    require(copy[0] == 'h');
}

static void add_with_callback(void) {
    require(add(1, 41) == 42);
}

static void exchange_24_8_kib(void) {
    exchange(in, out);
}

/* Which: "echo", "add" or "exchange". */
int main(int argc, char **argv) {
    size_t count = argc > 1 ? (size_t)atoi(argv[1]) : 100000;
    const char *which = argc > 2 ? argv[2] : "echo";
    latency_pin(latency_core("BENCH_CORE_0", 0));
    memset(in, 7, sizeof in);
    if (strcmp(which, "echo") == 0) {
        return latency_measure(count, echo_hello);
    }
    if (strcmp(which, "add") == 0) {
        return latency_measure(count, add_with_callback);
    }
    int failed = latency_measure(count, exchange_24_8_kib);
    require(memcmp(in, out, sizeof out) == 0);
    return failed;
}
