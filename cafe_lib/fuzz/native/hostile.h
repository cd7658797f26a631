/* hostile.h - what the hostile guest and the hostile enclave know of an interface, and what they report. */
#ifndef HOSTILE_H
#define HOSTILE_H

#include "cafe_abi.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum hostile_role {
    HOSTILE_VALUE = 0,  /* bytes that no size depends on */
    HOSTILE_SIZE = 1,   /* a scalar that a count is computed from */
    HOSTILE_BUFFER = 2, /* the word of a pointer */
    HOSTILE_STRING = 3, /* the length of a string */
};

/* Of the fixed part of a frame. */
struct hostile_field {
    const char *name;
    uint32_t offset, bytes;
    uint32_t role; /* enum hostile_role */
};

/* A secret function, or a callback. Generated. */
struct hostile_function {
    const char *name;
    const struct hostile_field *fields;
    uint32_t field_count;
    uint32_t fixed_bytes;
    const uint64_t *edges; /* values at which this function's sizes reach a limit */
    uint32_t edge_count;
};
extern const struct hostile_function hostile_functions[];
extern const uint32_t hostile_function_count;
extern const uint64_t hostile_slot_bytes, hostile_bulk_bytes;

enum hostile_phase {
    HOSTILE_STRUCTURED = 0, /* every field at every edge, alone and in pairs */
    HOSTILE_RANDOM = 1,
    HOSTILE_RACING = 2,  /* another thread rewrites everything meanwhile */
    HOSTILE_REPLIES = 3, /* the other direction: a hostile enclave and agent */
};

#define HOSTILE_STATUSES 17u /* CAFE_OK to CAFE_E_CALLBACK */

/* A file both processes map: how far a worker is. Read by findings.py. */
struct hostile_report {
    uint64_t index; /* of the input being tried */
    uint64_t entry; /* the function that runs now: a callback or a racing writer may call another one */
    uint64_t total; /* of the phase; 0: as many as one likes */
    uint64_t rewrites, callbacks, nested, fetched_bytes, ended;
    uint64_t statuses[HOSTILE_STATUSES];
    uint64_t field_count; /* what the input is, for people */
    uint64_t fields[64];
    uint64_t done; /* 1: the phase is complete */
};

/* What a worker is to do; from its arguments. */
struct hostile_task {
    const struct hostile_function *function;
    uint32_t entry;
    uint32_t phase;
    uint64_t seed, first, count, milliseconds, rewrites;
    uint64_t spared; /* bit i: function i is called only when it is the one to try */
    struct hostile_report *report;
};

/* task.c: parse the arguments and map the report; ends the process with 2 if that fails. */
void hostile_start(struct hostile_task *task, int argc, char **argv);
/* Whether to go on with input `index`. */
bool hostile_more(const struct hostile_task *task, uint64_t index);

/* Numbers that depend on the seed, the function, the phase and the index only, so that one input can be made
 * again. */
struct hostile_random {
    uint64_t state;
};
struct hostile_random hostile_seed(const struct hostile_task *task, uint64_t index);
uint64_t hostile_next(struct hostile_random *random);
static inline uint64_t hostile_below(struct hostile_random *random, uint64_t end) {
    return hostile_next(random) % end;
}

/* frames.c: fill the fixed part and the data of a frame, `room` bytes from its start to the slot's end. */
uint64_t hostile_structured_count(const struct hostile_function *function);
void hostile_structured_frame(const struct hostile_function *function, uint64_t index, uint8_t *frame,
                              uint64_t room);
void hostile_random_frame(const struct hostile_function *function, struct hostile_random *random,
                          uint8_t *frame, uint64_t room);
void hostile_random_data(struct hostile_random *random, uint8_t *data, uint64_t bytes);
/* A word for a field, from plausible to absurd. */
uint64_t hostile_word(const struct hostile_function *function, uint32_t role, struct hostile_random *random);
void hostile_describe(const struct hostile_function *function, const uint8_t *frame,
                      struct hostile_report *report);

#endif
