/* hand.h - an interface whose stubs are written by hand in hand.c, and served by hand_enclave.c: the call
 * path alone, without the generators. */
#ifndef HAND_H
#define HAND_H

#include <stddef.h>
#include <stdint.h>

#include "cafe.h"

enum hand_entry { HAND_EMPTY, HAND_ADD, HAND_SUM, HAND_FILL, HAND_ASK, HAND_SLEEP, HAND_ERRNO, HAND_FORGE };

#define HAND_CALLBACKS 2u

/* All of them return this when the call fails. */
#define HAND_FAILED UINT64_MAX

uint64_t hand_empty(void);
uint64_t hand_add(uint64_t a, uint64_t b);
uint64_t hand_sum(const uint8_t *data, uint64_t count);
uint64_t hand_fill(uint8_t *out, uint64_t count); /* out[i] = i */
uint64_t hand_ask(uint64_t value);                /* callback 0 with it, twice; the sum of what it returned */
uint64_t hand_sleep(uint64_t milliseconds);
uint64_t hand_errno(uint64_t value);  /* leaves errno so */
uint64_t hand_forge(uint64_t answer); /* the enclave answers with this status and a hostile result */

/* The program's: callback 0. */
uint64_t hand_asked(uint64_t value);

/* Callback 1 has no default. */
typedef uint64_t hand_other(uint64_t value);

#endif
