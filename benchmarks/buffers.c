/* buffers.c - times large buffers on their way in, and memcpy of as much, in turn. Prints medians in ns. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "cases.h"
#include "latency.h"

#define LARGE ((size_t)64 << 20)
#define TWICE ((size_t)50 << 20)
#define MOST_ROUNDS 64u

enum what { COPY, SHARED, PLAIN, COPY_TWO, TWO, KINDS };

static uint64_t spent[KINDS][MOST_ROUNDS];

/* The interface has it; here nobody asks for a sum. */
int32_t host_add(int32_t a, int32_t b) {
    return a + b;
}

/* Large pages, if there are any: what is compared is copying, not the TLB. */
static void *take_memory(size_t bytes) {
    void *memory = aligned_alloc((size_t)2 << 20, bytes);
    if (memory != NULL) {
        (void)madvise(memory, bytes, MADV_HUGEPAGE);
    }
    return memory;
}

static void *filled(void *memory, size_t bytes) {
    if (memory == NULL) {
        fprintf(stderr, "no memory: %s\n", cafe_error_message());
        exit(1);
    }
    memset(memory, 3, bytes);
    return memory;
}

static void require(int good) {
    if (!good) {
        fprintf(stderr, "a wrong answer\n");
        exit(1);
    }
}

/* The enclave wipes its copy after the answer: a small call waits for that, outside what is timed. */
static void settle(void) {
    require(take((const uint8_t *)"\1\2", 2) == 3);
}

static void copy(uint8_t *to, const uint8_t *from, size_t bytes, enum what what, size_t round) {
    uint64_t before = latency_now_ns();
    memcpy(to, from, bytes);
    __asm__ volatile("" : : "r"(to) : "memory");
    spent[what][round] = latency_now_ns() - before;
}

static void send(const uint8_t *buffer, enum what what, size_t round) {
    uint64_t before = latency_now_ns();
    require(take(buffer, LARGE) == 6);
    spent[what][round] = latency_now_ns() - before;
    settle();
}

static void measure_one(size_t rounds, uint8_t *plain, uint8_t *other) {
    uint8_t *shared = filled(cafe_alloc(NULL, LARGE), LARGE);
    for (size_t warm = 0; warm < 2; warm++) {
        send(shared, SHARED, 0);
        send(plain, PLAIN, 0);
    }
    for (size_t i = 0; i < rounds; i++) {
        copy(other, plain, LARGE, COPY, i);
        send(shared, SHARED, i);
        send(plain, PLAIN, i);
    }
    cafe_free(shared);
}

static void measure_two(size_t rounds, const uint8_t *first, uint8_t *second) {
    for (size_t i = 0; i <= rounds; i++) {
        uint64_t before = latency_now_ns();
        require(take_two(first, second, TWICE) == 12);
        spent[TWO][i % rounds] = latency_now_ns() - before; /* the last takes the place of the first */
        settle();
        copy(second, first, TWICE, COPY_TWO, i % rounds);
        spent[COPY_TWO][i % rounds] *= 2;
    }
}

int main(int argc, char **argv) {
    static const char *const names[KINDS] = {"memcpy_ns", "shared_ns", "plain_ns", "memcpy_two_ns", "two_ns"};
    size_t rounds = argc > 1 ? (size_t)atoi(argv[1]) : 9;
    latency_pin(latency_core("BENCH_CORE_0", 0));
    require(rounds >= 1 && rounds <= MOST_ROUNDS);
    uint8_t *plain = filled(take_memory(LARGE), LARGE), *other = filled(take_memory(LARGE), LARGE);
    measure_one(rounds, plain, other);
    measure_two(rounds, plain, other);
    for (size_t kind = 0; kind < KINDS; kind++) {
        printf("%s\"%s\": %llu", kind == 0 ? "{" : ", ", names[kind],
               (unsigned long long)latency_median(spent[kind], rounds));
    }
    printf("}\n");
    return 0;
}
