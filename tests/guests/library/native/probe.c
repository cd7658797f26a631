/* probe.c - one experiment per command line; prints what a caller sees. */
#define _GNU_SOURCE
#include "sample.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void report(const char *what, long value) {
    printf("%s %ld error %d %s\n", what, value, cafe_last_error(), cafe_error_message());
    fflush(stdout);
}

static void *many(void *argument) {
    long bad = 0;
    for (int i = 0; i < *(int *)argument; i++) {
        const uint32_t values[] = {(uint32_t)i, 2, 3};
        bad += sample_sum(values, 3) != i + 5;
    }
    return (void *)bad;
}

static int threads(int count, int calls) {
    pthread_t started[64];
    long bad = 0;
    for (int i = 0; i < count; i++) {
        if (pthread_create(&started[i], NULL, many, &calls) != 0) {
            return 1;
        }
    }
    for (int i = 0; i < count; i++) {
        void *some = NULL;
        (void)pthread_join(started[i], &some);
        bad += (long)some;
    }
    report("bad", bad);
    return 0;
}

static int forked(void) {
    report("parent", sample_flip(false));
    const pid_t child = fork();
    if (child == 0) {
        report("child", sample_flip(false));
        _exit(0);
    }
    int status = 0;
    (void)waitpid(child, &status, 0);
    report("parent", sample_flip(false));
    return status;
}

/* In a child of its own: call or touch the range at an offset. */
static int in_child(unsigned long offset, int access) {
    char *base = (char *)cafe_secret_base(NULL);
    const pid_t child = fork();
    if (child == 0) {
        if (access == 'x') {
            typedef bool (*function)(bool);
            _exit(((function)(void *)(base + offset))(false) ? 10 : 11);
        }
        if (access == 'r') {
            _exit(*(volatile char *)(base + offset));
        }
        *(volatile char *)(base + offset) = 1;
        _exit(0);
    }
    int status = 0;
    (void)waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int every_offset(unsigned long from, unsigned long to, int access) {
    long refused = 0, ran = 0, other = 0;
    for (unsigned long offset = from; offset < to; offset++) {
        const int end = in_child(offset, access);
        refused += end == 70;
        ran += end == 10;
        other += end != 70 && end != 10;
    }
    printf("refused %ld ran %ld other %ld\n", refused, ran, other);
    return 0;
}

/* How many descriptors this many calls leave open. */
static int descriptors(int calls) {
    long count[2] = {0, 0};
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < calls * round; i++) {
            (void)sample_flip(false);
        }
        for (int fd = 0; fd < 1024; fd++) {
            count[round] += fcntl(fd, F_GETFD) >= 0;
        }
    }
    report("left", count[1] - count[0]);
    return 0;
}

static void own_handler(int signal) {
    (void)signal;
    static const char text[] = "own handler\n";
    _exit(write(STDOUT_FILENO, text, sizeof text - 1) > 0 ? 33 : 34);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    const int first = argc > 2 ? atoi(argv[2]) : 0, second = argc > 3 ? atoi(argv[3]) : 0;
    if (strcmp(what, "flip") == 0) {
        for (int i = 0; i < first; i++) {
            report("flip", sample_flip(false));
            usleep((useconds_t)second * 1000);
        }
        return 0;
    }
    if (strcmp(what, "descriptors") == 0) {
        return descriptors(first);
    }
    if (strcmp(what, "sleep") == 0) {
        report("sleep", sample_sleep((uint32_t)first));
        report("flip", sample_flip(false));
        return 0;
    }
    if (strcmp(what, "fatal") == 0) {
        report("fatal", sample_fatal(1));
        return 0;
    }
    if (strcmp(what, "threads") == 0) {
        return threads(first, second);
    }
    if (strcmp(what, "fork") == 0) {
        return forked();
    }
    if (strcmp(what, "range") == 0) {
        return every_offset((unsigned long)first, (unsigned long)second, argv[4][0]);
    }
    if (strcmp(what, "null") == 0) {
        *(volatile int *)(uintptr_t)first = 1; /* a fault that is not libcafe's */
    }
    if (strcmp(what, "raise") == 0) {
        return raise(SIGSEGV);
    }
    return 2;
}

/* Before libcafe's own constructor, or libcafe would not be the one that is chained. */
__attribute__((constructor(101))) static void install(void) {
    if (getenv("OWN_HANDLER") != NULL) {
        (void)signal(SIGSEGV, own_handler);
    }
}
