/* recover.c - a public program that ends its enclave each time it reads a line, and times what follows. */
#define _GNU_SOURCE
#include "cafe_abi.h"
#include "echo.h"
#include "latency.h"

#define PATIENCE_NS 10000000000u

static int answers(void) {
    uint8_t in[64] = {7}, out[64];
    return echo64(in, out) == 7 && out[0] == 7;
}

int main(void) {
    char line[16];
    if (!answers()) {
        fprintf(stderr, "no enclave: %s\n", cafe_error_message());
        return 1;
    }
    printf("{}\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        unsigned refused = 0;
        uint64_t called = latency_now_ns();
        int result = fault();
        uint64_t failed = latency_now_ns();
        if (result != -1 || cafe_last_error() != CAFE_E_FAULT) {
            fprintf(stderr, "no fault: %s\n", cafe_error_message());
            return 1;
        }
        for (; !answers(); refused++) {
            if (latency_now_ns() - failed > PATIENCE_NS) {
                fprintf(stderr, "no fresh enclave: %s\n", cafe_error_message());
                return 1;
            }
        }
        uint64_t answered = latency_now_ns();
        printf("{\"from_fault_ns\": %llu, \"from_error_ns\": %llu, \"refused\": %u}\n",
               (unsigned long long)(answered - called), (unsigned long long)(answered - failed), refused);
        fflush(stdout);
    }
    return 0;
}
