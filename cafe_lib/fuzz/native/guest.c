/* guest.c - the hostile guest: sends frames to the secret stubs, rewrites them meanwhile, answers callbacks
 * with anything. One worker tries one function in one way. */
#include "hostile.h"
#include "stand_in.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_TURNS 40u    /* of the guest, in the callbacks of one call */
#define LEAST_RACED 2000u /* frames, however fast the rewrites come */
#define BULK_FILL 4096u

static struct hostile_task task;
static struct hostile_random dice; /* of the present input */
static uint32_t turns;
static volatile bool stop;

static uint8_t *frame(void) {
    return (uint8_t *)stand_in_slot() + CAFE_SLOT_FRAME;
}

static uint64_t room(void) {
    return hostile_slot_bytes - CAFE_SLOT_FRAME;
}

static bool spared(uint32_t entry) {
    return entry != task.entry && entry < 64 && (task.spared >> entry & 1) != 0;
}

static uint32_t some_entry(struct hostile_random *random) {
    const uint32_t entry = (uint32_t)hostile_below(random, hostile_function_count);
    switch (hostile_below(random, 12)) {
    case 0:
        return hostile_function_count + (uint32_t)hostile_below(random, 3);
    case 1:
        return UINT32_MAX - 1 - (uint32_t)(hostile_next(random) >> 33);
    case 2:
        return CAFE_ENTRY_RETURN; /* though no callback is out */
    default:
        return spared(entry) ? task.entry : entry;
    }
}

static bool there(void) {
    return turns <= MOST_TURNS;
}

/* A callback is out: return from it with anything, call again, or send what is not a request at all. */
static void turn(void) {
    struct cafe_slot *slot = stand_in_slot();
    const uint32_t served = slot->reply;
    const uint64_t what = hostile_below(&dice, 8);
    const bool nest = what == 0 && hostile_function_count > 0;
    if (++turns > MOST_TURNS) {
        return; /* gone, as far as the enclave can tell */
    }
    if (nest) {
        slot->entry = some_entry(&dice);
        slot->entry = slot->entry == CAFE_ENTRY_RETURN ? task.entry : slot->entry;
        hostile_random_frame(&hostile_functions[slot->entry % hostile_function_count], &dice, frame(),
                             room());
    } else {
        hostile_random_data(&dice, frame(), room());
        slot->entry = CAFE_ENTRY_RETURN;
        const uint32_t wild = (uint32_t)hostile_next(&dice);
        slot->returned = what < 4 ? 0 : what < 6 ? wild % 20 : wild;
    }
    const uint32_t step = what == 7 ? (uint32_t)hostile_below(&dice, 4) * 2 : 1; /* 1 is a request */
    __atomic_store_n(&slot->request, served + step, __ATOMIC_RELEASE);
}

static void fill_bulk(struct hostile_random *random) {
    if (hostile_bulk_bytes != 0) {
        const uint64_t pages = hostile_bulk_bytes / BULK_FILL;
        uint8_t *page = stand_in.guest + stand_in.bulk_start + hostile_below(random, pages) * BULK_FILL;
        hostile_random_data(random, page, BULK_FILL);
    }
}

/* Rewrites fields, data, entry and bulk area for as long as calls are made. */
static void *rewrite(void *argument) {
    struct hostile_random random = hostile_seed(&task, ~0ull);
    const struct hostile_function *function = task.function;
    volatile uint8_t *data = frame();
    uint64_t *report = argument;
    while (!stop) {
        if (function->field_count > 0) {
            const struct hostile_field *field =
                &function->fields[hostile_below(&random, function->field_count)];
            const uint64_t word = hostile_word(function, field->role, &random);
            memcpy(frame() + field->offset, &word, field->bytes < 8 ? field->bytes : 8);
        }
        const uint64_t anything = hostile_next(&random);
        data[anything % room()] = (uint8_t)(anything >> 56) % 3;
        data[(anything >> 16) % (room() < 512 ? room() : 512)] = (uint8_t)(anything >> 48);
        if (hostile_bulk_bytes != 0) {
            stand_in.guest[stand_in.bulk_start + (anything >> 8) % hostile_bulk_bytes] = (uint8_t)anything;
        }
        if (anything % 64 == 0) {
            stand_in_slot()->entry = some_entry(&random);
        } else if (anything % 8 == 0) {
            stand_in_slot()->entry = task.entry;
        }
        __atomic_fetch_add(report, 4, __ATOMIC_RELAXED);
    }
    return NULL;
}

/* CAFE_E_ABORT: an exception left the function, which fails no other call. */
static bool allowed(enum cafe_status status) {
    return status == CAFE_OK || status == CAFE_E_MALFORMED || status == CAFE_E_LIMIT ||
           status == CAFE_E_ENTRY || status == CAFE_E_CALLBACK || status == CAFE_E_EXITED ||
           status == CAFE_E_ABORT || stand_in.aborted != 0;
}

static void prepare(uint64_t index) {
    struct cafe_slot *slot = stand_in_slot();
    slot->entry = task.entry;
    if (task.phase == HOSTILE_STRUCTURED) {
        hostile_structured_frame(task.function, index, frame(), room());
    } else {
        hostile_random_frame(task.function, &dice, frame(), room());
        fill_bulk(&dice);
    }
    hostile_describe(task.function, frame(), task.report);
}

static void try_one(uint64_t index) {
    struct hostile_report *report = task.report;
    struct cafe_slot *slot = stand_in_slot();
    dice = hostile_seed(&task, index);
    turns = 0;
    report->index = index;
    prepare(index);
    __atomic_store_n(&slot->request, slot->reply + 1, __ATOMIC_RELEASE);
    const enum cafe_status status = stand_in_call();
    if (!allowed(status) || (uint32_t)status >= HOSTILE_STATUSES) {
        stand_in_fail("status %u is none of those a call can end with", (uint32_t)status);
    }
    report->statuses[status]++;
    report->ended += stand_in.aborted != 0;
    report->callbacks = stand_in.callbacks;
    report->nested = stand_in.nested;
    report->fetched_bytes = stand_in.fetched;
}

static bool raced_enough(uint64_t index) {
    return __atomic_load_n(&task.report->rewrites, __ATOMIC_RELAXED) >= task.rewrites &&
           index - task.first >= LEAST_RACED && !hostile_more(&task, index);
}

static void race(void) {
    pthread_t writer;
    uint64_t index = task.first;
    if (pthread_create(&writer, NULL, rewrite, &task.report->rewrites) != 0) {
        perror("pthread_create");
        exit(2);
    }
    while (!raced_enough(index)) {
        try_one(index++);
    }
    stop = true;
    (void)pthread_join(writer, NULL);
}

int main(int argc, char **argv) {
    hostile_start(&task, argc, argv);
    stand_in_start(hostile_slot_bytes, hostile_bulk_bytes);
    stand_in.entry = &task.report->entry;
    task.report->entry = task.entry;
    stand_in.turn = turn;
    stand_in.there = there;
    stand_in.may_abort = getenv("CAFE_FUZZ_ALLOW_ABORT") != NULL;
    if (task.phase == HOSTILE_RACING) {
        race();
    } else {
        uint64_t end = ~0ull;
        if (task.phase == HOSTILE_STRUCTURED) {
            task.report->total = end = hostile_structured_count(task.function);
        }
        for (uint64_t index = task.first; index < end && hostile_more(&task, index); index++) {
            try_one(index);
        }
    }
    task.report->done = 1;
    return 0;
}
