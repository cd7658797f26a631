/* threads.c - a public program whose threads all call at once, on two cores; prints for each number of
 * threads how many calls they made in all, and the least and most of any of them. */
#define _GNU_SOURCE
#include <pthread.h>

#include "echo.h"
#include "latency.h"

#define MOST_THREADS 256u

/* A line of its own: the counters must not be what slows the threads down. */
static struct counter {
    _Alignas(64) uint64_t calls;
} counters[MOST_THREADS];

static pthread_barrier_t start;
static uint32_t over;

static void *call_until_over(void *argument) {
    struct counter *counter = argument;
    pthread_barrier_wait(&start);
    for (;;) {
        nothing();
        if (__atomic_load_n(&over, __ATOMIC_RELAXED)) {
            return NULL;
        }
        counter->calls++;
    }
}

static void nap(uint64_t ns) {
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    while (nanosleep(&t, &t) != 0) {
    }
}

static void report(size_t threads, uint64_t ns) {
    uint64_t total = 0, least = UINT64_MAX, most = 0;
    for (size_t i = 0; i < threads; i++) {
        total += counters[i].calls;
        least = counters[i].calls < least ? counters[i].calls : least;
        most = counters[i].calls > most ? counters[i].calls : most;
    }
    printf("{\"threads\": %zu, \"calls_per_s\": %.1f, \"least\": %llu, \"most\": %llu, \"mean\": %.1f}\n",
           threads, (double)total * 1e9 / (double)ns, (unsigned long long)least, (unsigned long long)most,
           (double)total / (double)threads);
}

static int measure(size_t threads, uint64_t ns) {
    pthread_t ids[MOST_THREADS];
    __atomic_store_n(&over, 0, __ATOMIC_RELAXED);
    pthread_barrier_init(&start, NULL, (unsigned)threads + 1);
    for (size_t i = 0; i < threads; i++) {
        counters[i].calls = 0;
        if (pthread_create(&ids[i], NULL, call_until_over, &counters[i]) != 0) {
            perror("pthread_create");
            return 1;
        }
    }
    pthread_barrier_wait(&start);
    uint64_t began = latency_now_ns();
    nap(ns);
    __atomic_store_n(&over, 1, __ATOMIC_RELAXED);
    uint64_t took = latency_now_ns() - began;
    for (size_t i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
    }
    report(threads, took);
    return 0;
}

static void use_two_cores(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)latency_core("BENCH_CORE_0", 0), &set);
    CPU_SET((size_t)latency_core("BENCH_CORE_1", 1), &set);
    sched_setaffinity(0, sizeof set, &set);
}

/* Milliseconds for each, then the numbers of threads. */
int main(int argc, char **argv) {
    uint64_t ns = (argc > 1 ? strtoull(argv[1], NULL, 10) : 500) * 1000000u;
    use_two_cores();
    for (int i = 0; i < 1000; i++) {
        nothing();
    }
    for (int i = 2; i < argc; i++) {
        size_t threads = strtoul(argv[i], NULL, 10);
        if (threads < 1 || threads > MOST_THREADS || measure(threads, ns) != 0) {
            return 1;
        }
    }
    return 0;
}
