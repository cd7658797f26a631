/* hand_probe.c - one experiment with the call path per command line; prints what a caller sees. */
#define _GNU_SOURCE
#include "hand.h"
#include "cafe_abi.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "line %d: %s (%d %s)\n", __LINE__, #condition, cafe_last_error(),                \
                    cafe_error_message());                                                                   \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

#define KILO 1024ul
#define MEGA (KILO * KILO)

static uint64_t (*asked)(uint64_t value); /* what callback 0 does in this experiment */

uint64_t hand_asked(uint64_t value) {
    return asked(value);
}

static uint64_t twice(uint64_t value) {
    return value * 2;
}

static void report(const char *what) {
    printf("%s error %d %s\n", what, cafe_last_error(), cafe_error_message());
    fflush(stdout);
}

/* ---- callbacks */

static uint64_t nest(uint64_t value) {
    CHECK(errno == 0);
    errno = 33; /* for the secret code, which leaves it so for its caller */
    return value + hand_add(value, 1000);
}

/* How many callbacks there were that could call no more. */
static uint64_t deep(uint64_t value) {
    if (hand_add(1, 1) != 2) {
        CHECK(cafe_last_error() == CAFE_E_LIMIT);
        return 1;
    }
    return hand_ask(value + 1);
}

static uint64_t other(uint64_t value) {
    return value + 100;
}

static void callbacks(void) {
    asked = twice;
    CHECK(hand_ask(20) == 40 + 42);
    asked = nest;
    errno = 77;
    CHECK(hand_ask(5) == (5 + 1005) + (6 + 1006) && errno == 33);
    asked = twice;
    errno = 77;
    CHECK(hand_ask(5) == 22 && errno == 77);
    CHECK(cafe_set_callback("hand_asked", NULL) == 0 && hand_ask(1) == 2 * HAND_FAILED);
    CHECK(cafe_set_callback("hand_asked", (void (*)(void))other) == 0 && hand_ask(1) == 101 + 102);
    CHECK(cafe_set_callback("no_such", (void (*)(void))other) == -1);
    CHECK(cafe_set_callback("hand_asked", (void (*)(void))hand_asked) == 0);
    asked = deep;
    CHECK(hand_ask(1) == 2u << CAFE_MAX_NESTING && cafe_last_error() == 0); /* two from each */
    CHECK(hand_add(3, 4) == 7);
}

/* ---- large buffers */

static void buffers(void) {
    const uint64_t sizes[] = {0, 1, KILO, KILO + 1, 8 * KILO, 16 * KILO, 100 * KILO, 2 * MEGA};
    uint8_t *data = malloc(2 * MEGA + 1), *shared = cafe_alloc(NULL, MEGA);
    CHECK(data != NULL && shared != NULL && ((uintptr_t)shared & 63) == 0);
    memset(data, 3, 2 * MEGA);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        CHECK(hand_sum(data, sizes[i]) == 3 * sizes[i]);
        data[sizes[i]] = 0xee;
        CHECK(hand_fill(data, sizes[i]) == sizes[i] && data[sizes[i]] == 0xee);
        CHECK(sizes[i] == 0 || data[sizes[i] - 1] == (uint8_t)(sizes[i] - 1));
        memset(data, 3, 2 * MEGA);
    }
    CHECK(hand_fill(shared, MEGA) == MEGA && shared[MEGA - 1] == 0xff);
    CHECK(hand_fill(shared + 10, 5000) == 5000 && shared[10] == 0 && shared[5010] == (uint8_t)5010);
    CHECK(hand_fill(shared + 64, 5000) == 5000 && shared[63] == 53 && shared[64] == 0);
    CHECK(hand_sum(shared + MEGA - 64, 2000) == HAND_FAILED && cafe_last_error() == CAFE_E_LIMIT);
    CHECK(strstr(cafe_error_message(), "cafe_alloc") != NULL);
    CHECK(hand_sum(data, 64 * MEGA) == HAND_FAILED && strstr(cafe_error_message(), "bulk") != NULL);
    CHECK(cafe_alloc(NULL, 64 * MEGA) == NULL && strstr(cafe_error_message(), "bulk") != NULL);
    CHECK(cafe_alloc(NULL, SIZE_MAX) == NULL && cafe_alloc("other", 1) == NULL);
    cafe_free(shared);
    cafe_free(NULL);
    cafe_free(data); /* not ours: nothing happens */
    free(data);
}

static void *churn(void *seed) {
    unsigned state = (unsigned)(uintptr_t)seed;
    uint8_t *held[8] = {0};
    size_t sizes[8] = {0};
    for (int i = 0; i < 3000; i++) {
        const unsigned at = (unsigned)rand_r(&state) % 8;
        for (size_t k = 0; held[at] != NULL && k < sizes[at]; k += 61) {
            CHECK(held[at][k] == (uint8_t)(uintptr_t)seed);
        }
        cafe_free(held[at]);
        sizes[at] = 1 + (size_t)rand_r(&state) % (64 * KILO);
        held[at] = cafe_alloc("hand", sizes[at]);
        if (held[at] != NULL) {
            memset(held[at], (int)(uintptr_t)seed, sizes[at]);
        }
    }
    for (int i = 0; i < 8; i++) {
        cafe_free(held[i]);
    }
    return NULL;
}

/* Blocks of several threads never overlap, and all of them can be had again. */
static void blocks(void) {
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++) {
        CHECK(pthread_create(&threads[i], NULL, churn, (void *)(i + 1)) == 0);
    }
    for (int i = 0; i < 4; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    void *all = cafe_alloc(NULL, 4 * MEGA);
    CHECK(all != NULL && cafe_alloc(NULL, 1) == NULL);
    cafe_free(all);
}

/* ---- what a call leaves behind */

static void errors(void) {
    errno = 5;
    CHECK(hand_add(1, 2) == 3 && errno == 5);
    CHECK(hand_errno(11) == 0 && errno == 11);
    CHECK(hand_errno(CAFE_MAX_ERRNO) == 0 && errno == (int)CAFE_MAX_ERRNO);
    CHECK(hand_errno(0) == 0 && errno == (int)CAFE_MAX_ERRNO);
    CHECK(hand_forge(CAFE_E_LIMIT | 9u << 16) == HAND_FAILED && cafe_last_error() == CAFE_E_LIMIT);
    CHECK(errno == (int)CAFE_MAX_ERRNO);
}

static void forge(uint64_t answer) {
    CHECK(hand_add(1, 2) == 3);
    (void)hand_forge(answer);
    report("forged");
    CHECK(hand_add(1, 2) == 3);
}

/* ---- threads that never come back from a callback */

static uint64_t leave(uint64_t value) {
    (void)value;
    pthread_exit(NULL);
}

static uint64_t stay(uint64_t value) {
    for (;;) {
        pause();
    }
    return value;
}

static void *ask(void *argument) {
    return (void *)(uintptr_t)hand_ask((uintptr_t)argument);
}

static void gone(void) {
    pthread_t thread;
    for (int i = 0; i < 10; i++) { /* more than there are slots */
        asked = leave;
        CHECK(pthread_create(&thread, NULL, ask, NULL) == 0 && pthread_join(thread, NULL) == 0);
        CHECK(hand_add(1, 2) == 3);
        asked = stay;
        CHECK(pthread_create(&thread, NULL, ask, NULL) == 0);
        usleep(20000);
        CHECK(pthread_cancel(thread) == 0 && pthread_join(thread, NULL) == 0);
        CHECK(hand_add(1, 2) == 3);
    }
}

/* A callback waits for another thread's call. */
static uint64_t depend(uint64_t value) {
    pthread_t thread;
    void *result = NULL;
    asked = twice;
    CHECK(pthread_create(&thread, NULL, ask, (void *)(uintptr_t)value) == 0);
    CHECK(pthread_join(thread, &result) == 0);
    return (uint64_t)(uintptr_t)result;
}

/* The enclave ends while a callback is out, and another thread's call needs a fresh one. */
static uint64_t outlive(uint64_t value) {
    pthread_t thread;
    printf("kill\n");
    fflush(stdout);
    (void)getchar();
    asked = twice;
    CHECK(pthread_create(&thread, NULL, ask, (void *)(uintptr_t)value) == 0);
    void *result = NULL;
    CHECK(pthread_join(thread, &result) == 0 && (uintptr_t)result == 22);
    CHECK(hand_add(1, 1) == HAND_FAILED && cafe_last_error() == CAFE_E_EXITED); /* nested in a dead call */
    return value;
}

static void survivor(void) {
    uint8_t *shared = cafe_alloc(NULL, 5000);
    CHECK(shared != NULL);
    memset(shared, 9, 5000);
    asked = outlive;
    CHECK(hand_ask(5) == HAND_FAILED && cafe_last_error() == CAFE_E_EXITED);
    CHECK(hand_add(1, 2) == 3 && shared[4999] == 9);
    CHECK(hand_sum(shared, 5000) == 45000);
    cafe_free(shared);
}

/* ---- a signal handler that calls */

static volatile sig_atomic_t handled, refused;

static void on_alarm(int signal) {
    (void)signal;
    const int before = errno;
    if (hand_add(5, 6) == 11) {
        handled++;
    } else {
        refused++;
    }
    errno = before;
}

static void interrupted(void) {
    const struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    CHECK(hand_empty() == 0 && signal(SIGALRM, on_alarm) != SIG_ERR);
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    for (uint64_t i = 0; handled + refused < 200; i++) {
        CHECK(hand_add(i, 1) == i + 1);
    }
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    CHECK(handled > 0);
}

static uint64_t fork_inside(uint64_t value) {
    const pid_t child = fork();
    if (child == 0) {
        return value; /* into a call that is the parent's */
    }
    int status = 0;
    (void)waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 9);
    return value;
}

static void forked(void) {
    const pid_t self = getpid();
    asked = fork_inside;
    const uint64_t result = hand_ask(1);
    if (getpid() != self) {
        CHECK(result == HAND_FAILED && cafe_last_error() == CAFE_E_EXITED && hand_add(2, 2) == 4);
        _exit(9);
    }
    CHECK(result == 3 && hand_add(1, 2) == 3);
}

static void wait_for_other(void) {
    asked = depend;
    CHECK(hand_ask(4) == 18 + 10);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
    } experiments[] = {
        {"callbacks", callbacks},
        {"buffers", buffers},
        {"blocks", blocks},
        {"errors", errors},
        {"gone", gone},
        {"forked", forked},
        {"survivor", survivor},
        {"interrupted", interrupted},
        {"depend", wait_for_other},
    };
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "forge") == 0 && argc > 2) {
        forge(strtoull(argv[2], NULL, 0));
        return 0;
    }
    for (size_t i = 0; i < sizeof experiments / sizeof *experiments; i++) {
        if (strcmp(what, experiments[i].name) == 0) {
            experiments[i].run();
            puts("all good");
            return 0;
        }
    }
    return 2;
}
