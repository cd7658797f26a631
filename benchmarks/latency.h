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

static inline void latency_pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

static int latency_compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Sorts `cycles` and prints {"median_ns":..,"p99_ns":..}; the TSC rate comes from the run itself. */
static inline void latency_report(uint64_t *cycles, size_t count, uint64_t total_cycles, uint64_t total_ns) {
    double ns_per_cycle = (double)total_ns / (double)total_cycles;
    qsort(cycles, count, sizeof *cycles, latency_compare);
    printf("{\"median_ns\": %.1f, \"p99_ns\": %.1f}\n", (double)cycles[count / 2] * ns_per_cycle,
           (double)cycles[count * 99 / 100] * ns_per_cycle);
}

#endif
