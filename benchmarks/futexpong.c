/* futexpong.c - the baseline of a call where both sides share one core: two processes that sleep and wake. */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "latency.h"

static uint32_t *turn; /* even: the caller's, odd: the other's */

static void hand_over(uint32_t now) {
    __atomic_store_n(turn, now + 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, turn, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static uint32_t wait_for(uint32_t parity) {
    uint32_t now;
    while ((now = __atomic_load_n(turn, __ATOMIC_ACQUIRE)) % 2 != parity) {
        syscall(SYS_futex, turn, FUTEX_WAIT, now, NULL, NULL, 0);
    }
    return now;
}

static void round_trip(void) {
    hand_over(wait_for(0));
    (void)wait_for(0);
}

int main(int argc, char **argv) {
    size_t count = argc > 1 ? (size_t)atoi(argv[1]) : 10000;
    turn = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (turn == MAP_FAILED) {
        return 1;
    }
    latency_pin(latency_core("BENCH_CORE_0", 0));
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
            hand_over(wait_for(1));
        }
    }
    int failed = latency_measure(count, round_trip);
    kill(child, SIGKILL);
    return failed;
}
