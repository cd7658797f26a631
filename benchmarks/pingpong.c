/* pingpong.c - the baseline of a call: two processes, one shared page, a word each way, nothing else. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "latency.h"

struct page {
    _Alignas(64) _Atomic uint32_t request;
    _Alignas(64) _Atomic uint32_t reply;
};

static void echo(struct page *page) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    latency_pin(1);
    for (uint32_t last = 0;; last++) {
        while (atomic_load_explicit(&page->request, memory_order_acquire) == last) {
            _mm_pause();
        }
        atomic_store_explicit(&page->reply, last + 1, memory_order_release);
    }
}

static void round_trip(struct page *page, uint32_t number) {
    atomic_store_explicit(&page->request, number, memory_order_release);
    while (atomic_load_explicit(&page->reply, memory_order_acquire) != number) {
        _mm_pause();
    }
}

int main(int argc, char **argv) {
    uint32_t count = argc > 1 ? (uint32_t)atoi(argv[1]) : 100000, warm = 10000;
    struct page *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t *cycles = calloc(count, sizeof *cycles);
    if (page == MAP_FAILED || cycles == NULL) {
        return 1;
    }
    pid_t child = fork();
    if (child == 0) {
        echo(page);
    }
    latency_pin(0);
    for (uint32_t i = 1; i <= warm; i++) {
        round_trip(page, i);
    }
    uint64_t start_ns = latency_now_ns(), start = __rdtsc();
    for (uint32_t i = 0; i < count; i++) {
        uint64_t before = __rdtsc();
        round_trip(page, warm + 1 + i);
        cycles[i] = __rdtsc() - before;
    }
    latency_report(cycles, count, __rdtsc() - start, latency_now_ns() - start_ns);
    kill(child, SIGKILL);
    return 0;
}
