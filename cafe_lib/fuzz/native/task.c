/* task.c - a worker's arguments, its report, and its random numbers. */
#define _GNU_SOURCE
#include "hostile.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define ARGUMENTS 10

static uint64_t started;

static uint64_t now_milliseconds(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static struct hostile_report *map_report(const char *path) {
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    void *report = fd < 0
                       ? MAP_FAILED
                       : mmap(NULL, sizeof(struct hostile_report), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (report == MAP_FAILED) {
        perror(path);
        exit(2);
    }
    (void)close(fd);
    return report;
}

void hostile_start(struct hostile_task *task, int argc, char **argv) {
    uint64_t numbers[ARGUMENTS] = {0};
    if (argc != ARGUMENTS) {
        (void)fprintf(stderr, "usage: REPORT FUNCTION PHASE SEED FIRST COUNT MILLISECONDS REWRITES SPARED\n");
        exit(2);
    }
    for (int i = 2; i < ARGUMENTS; i++) {
        numbers[i] = strtoull(argv[i], NULL, 10);
    }
    if (numbers[2] >= hostile_function_count) {
        (void)fprintf(stderr, "there is no function %lu\n", numbers[2]);
        exit(2);
    }
    *task = (struct hostile_task){.function = &hostile_functions[numbers[2]],
                                  .entry = (uint32_t)numbers[2],
                                  .phase = (uint32_t)numbers[3],
                                  .seed = numbers[4],
                                  .first = numbers[5],
                                  .count = numbers[6],
                                  .milliseconds = numbers[7],
                                  .rewrites = numbers[8],
                                  .spared = numbers[9],
                                  .report = map_report(argv[1])};
    started = now_milliseconds();
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* one that hangs must not outlive who watches it */
}

/* The clock is looked at now and then. Without a time limit, the count alone decides. */
bool hostile_more(const struct hostile_task *task, uint64_t index) {
    if (index - task->first >= task->count) {
        return false;
    }
    return task->milliseconds == 0 || index % 64 != 0 || now_milliseconds() - started < task->milliseconds;
}

static uint64_t mix(uint64_t word) {
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9ull;
    word = (word ^ (word >> 27)) * 0x94d049bb133111ebull;
    return word ^ (word >> 31);
}

struct hostile_random hostile_seed(const struct hostile_task *task, uint64_t index) {
    uint64_t state = mix(task->seed + 0x9e3779b97f4a7c15ull);
    state = mix(state ^ ((uint64_t)task->entry << 8 | task->phase));
    return (struct hostile_random){mix(state ^ index)};
}

uint64_t hostile_next(struct hostile_random *random) {
    random->state += 0x9e3779b97f4a7c15ull;
    return mix(random->state);
}
