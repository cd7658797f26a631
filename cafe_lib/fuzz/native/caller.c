/* caller.c - the program that calls secret functions of an enclave that lies to it. */
#define _GNU_SOURCE
#include "caller.h"

#include "cafe.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MOST_BUFFERS 128u
#define MOST_BYTES (1u << 20)
#define MOST_NESTING 3u

static struct hostile_task task;
static struct hostile_random *present; /* of the input being tried */
static uint32_t depth;
static volatile uint64_t heard; /* so that reading is not optimised away */

static struct {
    void *memory;
    bool shared;
} buffers[MOST_BUFFERS];
static uint32_t buffer_count;

static __attribute__((noreturn)) void fail(const char *text) {
    (void)fprintf(stderr, "cafe fuzz: %s\n", text);
    (void)fflush(stderr);
    _exit(77);
}

void caller_fill(void *value, uint64_t bytes, struct hostile_random *random) {
    for (uint64_t i = 0; i < bytes; i++) {
        ((uint8_t *)value)[i] = (uint8_t)hostile_below(random, 2);
    }
}

void caller_fill_size(void *value, uint64_t bytes, struct hostile_random *random) {
    const uint64_t small = hostile_below(random, hostile_below(random, 8) == 0 ? 4000 : 40);
    const uint64_t number = bytes == 1 ? small % 100 : small;
    memset(value, 0, bytes);
    memcpy(value, &number, bytes < sizeof number ? bytes : sizeof number);
}

static void *remember(void *memory, bool shared) {
    if (memory != NULL && buffer_count < MOST_BUFFERS) {
        buffers[buffer_count].memory = memory;
        buffers[buffer_count++].shared = shared;
    }
    return memory;
}

void *caller_buffer(uint64_t elements, uint64_t element_bytes, struct hostile_random *random) {
    uint64_t bytes = 0;
    const uint64_t dice = hostile_below(random, 16);
    if (__builtin_mul_overflow(elements, element_bytes, &bytes) || bytes > MOST_BYTES || dice < 2 ||
        buffer_count == MOST_BUFFERS) {
        return NULL;
    }
    void *memory = dice == 2 ? remember(cafe_alloc(NULL, bytes), true) : NULL;
    memory = memory == NULL ? remember(malloc(bytes), false) : memory;
    if (memory != NULL) {
        caller_fill(memory, bytes, random);
    }
    return memory;
}

char *caller_string(uint64_t most, struct hostile_random *random) {
    if (most == 0) {
        return NULL;
    }
    const uint64_t length = hostile_below(random, most < 300 ? most : 300);
    char *text = caller_buffer(length + 1, 1, random);
    if (text != NULL) {
        memset(text, 'a', length);
        text[length] = 0;
    }
    return text;
}

static void give_back(uint32_t first) {
    while (buffer_count > first) {
        buffer_count--;
        if (buffers[buffer_count].shared) {
            cafe_free(buffers[buffer_count].memory);
        } else {
            free(buffers[buffer_count].memory);
        }
    }
}

void caller_read(const void *buffer, uint64_t elements, uint64_t element_bytes) {
    for (uint64_t i = 0; buffer != NULL && i < elements * element_bytes; i++) {
        heard += ((const uint8_t *)buffer)[i];
    }
}

void caller_read_string(const char *text, uint64_t most) {
    if (text != NULL && strlen(text) >= most) {
        fail("a callback's string is longer than its CAFE_STR allows");
    }
}

void caller_write(void *buffer, uint64_t elements, uint64_t element_bytes) {
    for (uint64_t i = 0; buffer != NULL && i < elements * element_bytes; i++) {
        ((uint8_t *)buffer)[i] = 1;
    }
}

static void call(uint32_t function) {
    const uint32_t first = buffer_count;
    caller_calls[function](present);
    give_back(first);
}

void caller_served(void) {
    task.report->callbacks++;
    if (depth < MOST_NESTING && hostile_below(present, 4) == 0) {
        depth++;
        task.report->nested++;
        call((uint32_t)hostile_below(present, hostile_function_count));
        depth--;
    }
}

static void try_one(uint64_t index) {
    struct hostile_random random = hostile_seed(&task, index);
    present = &random;
    depth = 0;
    __atomic_store_n(&task.report->index, index, __ATOMIC_RELEASE);
    call(task.entry);
    const int status = cafe_last_error();
    if (status < 0 || (uint32_t)status >= HOSTILE_STATUSES) {
        fail("status: cafe_last_error() is none that there is");
    }
    if ((status == 0) != (cafe_error_message()[0] == 0)) {
        fail("status: cafe_error_message() is of another call");
    }
    task.report->statuses[status]++;
}

int main(int argc, char **argv) {
    const char *path = getenv("CAFE_SOCKET"); /* where the library looks for its agent */
    hostile_start(&task, argc, argv);
    task.report->entry = task.entry;
    if (path == NULL) {
        return 2;
    }
    liar_start(path, &task);
    for (uint64_t index = task.first; hostile_more(&task, index); index++) {
        try_one(index);
    }
    task.report->done = 1;
    return 0;
}
