/* pingpong.c - the baseline of a call: two processes, two cores, one shared page, a word each way, nothing
 * else; or, besides the words, so many bytes in and out, each copied out of private memory and into it. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "latency.h"

#define MOST_BYTES 32768u

static struct page {
    _Alignas(64) _Atomic uint32_t request;
    _Alignas(64) _Atomic uint32_t reply;
    _Alignas(64) uint8_t in[MOST_BYTES];
    _Alignas(64) uint8_t out[MOST_BYTES];
} *page;

static uint8_t own[MOST_BYTES];
static uint32_t number;

/* All of `bytes` is moved, although nobody looks at it. */
static inline void move(void *to, const void *from, size_t bytes) {
    if (bytes != 0) {
        memcpy(to, from, bytes);
        __asm__ volatile("" : : "r"(to) : "memory");
    }
}

static inline __attribute__((always_inline)) void serve(size_t in, size_t out) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    latency_pin(latency_core("BENCH_CORE_1", 1));
    for (uint32_t last = 0;; last++) {
        while (atomic_load_explicit(&page->request, memory_order_acquire) == last) {
            _mm_pause();
        }
        move(own, page->in, in);
        move(page->out, own, out);
        atomic_store_explicit(&page->reply, last + 1, memory_order_release);
    }
}

static inline __attribute__((always_inline)) void round_trip(size_t in, size_t out) {
    number++;
    move(page->in, own, in);
    atomic_store_explicit(&page->request, number, memory_order_release);
    while (atomic_load_explicit(&page->reply, memory_order_acquire) != number) {
        _mm_pause();
    }
    move(own, page->out, out);
}

static void bare(void) {
    round_trip(0, 0);
}

static void bytes_64(void) {
    round_trip(64, 64);
}

static void bytes_24_8_kib(void) {
    round_trip(24576, 8192);
}

int main(int argc, char **argv) {
    size_t count = argc > 1 ? (size_t)atoi(argv[1]) : 100000, in = argc > 2 ? (size_t)atoi(argv[2]) : 0;
    page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        return 1;
    }
    pid_t child = fork();
    if (child == 0) {
        in == 0 ? serve(0, 0) : in == 64 ? serve(64, 64) : serve(24576, 8192);
    }
    latency_pin(latency_core("BENCH_CORE_0", 0));
    int failed = in == 0    ? latency_measure(count, bare)
                 : in == 64 ? latency_measure(count, bytes_64)
                            : latency_measure(count, bytes_24_8_kib);
    kill(child, SIGKILL);
    return failed;
}
