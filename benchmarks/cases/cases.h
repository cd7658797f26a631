/* cases.h - secret functions of the shapes that other sandboxes are measured with, and for large buffers. */
#ifndef CASES_H
#define CASES_H

#include <stdint.h>

#include "cafe.h"

#define TEXT_BYTES 64
#define IN_BYTES 24576
#define OUT_BYTES 8192

/* The program's own; it adds. */
CAFE_CALLBACK int32_t host_add(int32_t a, int32_t b);

/* A string in, the same string out. */
CAFE_SECRET void echo_text(const char *text CAFE_STR(TEXT_BYTES), char *copy CAFE_OUT(TEXT_BYTES));

/* The sum, which the program has to work out. */
CAFE_SECRET int32_t add(int32_t a, int32_t b);

/* The beginning of `in`. */
CAFE_SECRET void exchange(const uint8_t *in CAFE_IN(IN_BYTES), uint8_t *out CAFE_OUT(OUT_BYTES));

/* First byte plus last byte. */
CAFE_SECRET int take(const uint8_t *buffer CAFE_IN(bytes), uint64_t bytes);

/* The same of both. */
CAFE_SECRET int take_two(const uint8_t *first CAFE_IN(bytes), const uint8_t *second CAFE_IN(bytes),
                         uint64_t bytes);

#endif
