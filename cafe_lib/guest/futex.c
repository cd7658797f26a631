/* futex.c - sleeping on a word, and waking who sleeps there. */
#define _GNU_SOURCE
#include "state.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void cafe_futex_wait(uint32_t *word, uint32_t value, long microseconds, bool shared) {
    const struct timespec limit = {microseconds / 1000000, microseconds % 1000000 * 1000};
    const int operation = shared ? FUTEX_WAIT : FUTEX_WAIT_PRIVATE;
    const int before = errno;
    (void)syscall(SYS_futex, word, operation, value, &limit, NULL,
                  0); /* the caller looks at the word again */
    errno = before;
}

void cafe_futex_wake(uint32_t *word, int threads, bool shared) {
    const int before = errno;
    (void)syscall(SYS_futex, word, shared ? FUTEX_WAKE : FUTEX_WAKE_PRIVATE, threads, NULL, NULL, 0);
    errno = before;
}
