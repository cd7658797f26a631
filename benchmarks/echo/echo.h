/* echo.h - the smallest secret function: 64 bytes in, 64 bytes out. */
#ifndef ECHO_H
#define ECHO_H

#include <stdint.h>

#include "cafe.h"

CAFE_SECRET int echo64(const uint8_t *in CAFE_IN(64), uint8_t *out CAFE_OUT(64)) CAFE_ON_ERROR(-1);

#endif
