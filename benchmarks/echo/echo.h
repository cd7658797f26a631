/* echo.h - the smallest secret functions. */
#ifndef ECHO_H
#define ECHO_H

#include <stdint.h>

#include "cafe.h"

/* The crossing alone. A call that fails ends the program. */
CAFE_SECRET void nothing(void);

/* 64 bytes in, 64 bytes out; returns the first. */
CAFE_SECRET int echo64(const uint8_t *in CAFE_IN(64), uint8_t *out CAFE_OUT(64)) CAFE_ON_ERROR(-1);

/* Ends its enclave. */
CAFE_SECRET int fault(void) CAFE_ON_ERROR(-1);

#endif
