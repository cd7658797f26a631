/* latency.h - one way to time a round trip, shared by every program whose figures are compared. */
#ifndef LATENCY_H
#define LATENCY_H

#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <x86intrin.h>

static inline uint64_t latency_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The guest's core is "BENCH_CORE_0", the enclave's "BENCH_CORE_1"; without them they are 0 and 1. */
static inline int latency_core(const char *name, int otherwise) {
    const char *given = getenv(name);
    return given == NULL ? otherwise : atoi(given);
}

static inline void latency_pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

static inline int latency_compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static inline uint64_t latency_median(uint64_t *values, size_t count) {
    qsort(values, count, sizeof *values, latency_compare);
    return values[count / 2];
}

/* The smallest step between sorted values: some counters of cycles advance by dozens at a time. */
static inline uint64_t latency_step(const uint64_t *sorted, size_t count) {
    uint64_t step = UINT64_MAX;
    for (size_t i = 1; i < count; i++) {
        uint64_t gap = sorted[i] - sorted[i - 1];
        step = gap != 0 && gap < step ? gap : step;
    }
    return step == UINT64_MAX ? 0 : step;
}

/* A quantile of sorted values. Those that are equal count as spread over one step, as in any grouped data: a
 * ratio of two medians must not jump by a tenth because one of them has crossed from step to step. */
static inline double latency_quantile(const uint64_t *sorted, size_t count, double part) {
    const double rank = part * (double)count;
    const uint64_t at = sorted[(size_t)rank], step = latency_step(sorted, count);
    size_t below = (size_t)rank, end = below;
    while (below > 0 && sorted[below - 1] == at) {
        below--;
    }
    while (end < count && sorted[end] == at) {
        end++;
    }
    return (double)at + (double)step * ((rank - (double)below) / (double)(end - below) - 0.5);
}

/* Sorts `cycles` and prints median, p99 and mean in ns; the TSC rate comes from the run itself. */
static inline void latency_report(uint64_t *cycles, size_t count, uint64_t total_cycles, uint64_t total_ns) {
    double ns_per_cycle = (double)total_ns / (double)total_cycles;
    qsort(cycles, count, sizeof *cycles, latency_compare);
    printf("{\"median_ns\": %.1f, \"p99_ns\": %.1f, \"mean_ns\": %.1f}\n",
           latency_quantile(cycles, count, 0.5) * ns_per_cycle,
           latency_quantile(cycles, count, 0.99) * ns_per_cycle, (double)total_ns / (double)count);
}

/* Times `count` steps after some for warming up, and reports them; `step` is inlined. */
static inline __attribute__((always_inline)) int latency_measure(size_t count, void (*step)(void)) {
    uint64_t *cycles = calloc(count + 1, sizeof *cycles);
    if (cycles == NULL) {
        return 1;
    }
    for (size_t i = 0; i < count / 20 + 100; i++) {
        step();
    }
    uint64_t start_ns = latency_now_ns(), start = __rdtsc();
    for (size_t i = 0; i < count; i++) {
        uint64_t before = __rdtsc();
        step();
        cycles[i] = __rdtsc() - before;
    }
    latency_report(cycles, count, __rdtsc() - start, latency_now_ns() - start_ns);
    free(cycles);
    return 0;
}

#endif
