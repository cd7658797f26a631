/* caller.h - the other direction: a program whose enclave and agent lie. Between the generated calls
 * (calls.c), the program (caller.c) and the liar (liar.c). */
#ifndef CALLER_H
#define CALLER_H

#include "hostile.h"

#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Generated: make one call of a secret function with sound arguments. */
extern void (*const caller_calls[])(struct hostile_random *random);
/* Generated: what frames of callbacks look like. */
extern const struct hostile_function caller_callbacks[];
extern const uint32_t caller_callback_count;

/* A value of a parameter: any bytes that are good for every type, or a small number for a size. */
void caller_fill(void *value, uint64_t bytes, struct hostile_random *random);
void caller_fill_size(void *value, uint64_t bytes, struct hostile_random *random);

/* A buffer of exactly that size, now and then from cafe_alloc; NULL if there is too much, and now and then.
 * All of them are given back after the call. */
void *caller_buffer(uint64_t elements, uint64_t element_bytes, struct hostile_random *random);
/* A string that with its NUL is of `most` bytes at most. */
char *caller_string(uint64_t most, struct hostile_random *random);

/* What callbacks do: read what they were given, fill what they give back, now and then call again. */
void caller_read(const void *buffer, uint64_t elements, uint64_t element_bytes);
void caller_read_string(const char *text, uint64_t most);
void caller_write(void *buffer, uint64_t elements, uint64_t element_bytes);
void caller_served(void);

/* liar.c: play agent and enclave at this socket in a thread of its own. */
void liar_start(const char *socket_path, const struct hostile_task *task);

#ifdef __cplusplus
}
#endif

#endif
