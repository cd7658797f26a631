/* lies_inside.h - what lies_inside.c tells the test that called it. */
#ifndef LIES_INSIDE_H
#define LIES_INSIDE_H

#include "hostile.h"
#include "lies.h"

#define INSIDE_OWN 4

extern uint64_t inside_calls;              /* that reached a secret function */
extern const void *inside_own[INSIDE_OWN]; /* addresses that must not be seen outside */

#endif
