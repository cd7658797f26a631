/* edge.h - what a hostile guest plays with: callbacks, strings, buffers of every place, results with holes.
 */
#ifndef EDGE_H
#define EDGE_H

#include <cafe.h>
#include <stdint.h>

struct edge_padded {
    uint8_t a;
    uint64_t b;
    uint8_t c;
};

CAFE_CALLBACK CAFE_ON_ERROR(-1) int64_t edge_ask(uint32_t what, uint8_t *into CAFE_OUT(n), uint32_t n);

/* Makes a callback and gives back what came of it. */
CAFE_SECRET int64_t edge_call_back(uint32_t what, uint32_t n, uint8_t *got CAFE_OUT(64),
                                   int32_t *error CAFE_OUT(1));

/* Its length, measured twice: high half and low half. */
CAFE_SECRET uint64_t edge_text(const char *text CAFE_STR(64));

/* Each byte plus 1; returns how many input bytes changed meanwhile. */
CAFE_SECRET uint64_t edge_add(const uint8_t *in CAFE_IN(rows *columns), uint8_t *out CAFE_OUT(rows *columns),
                              uint64_t rows, uint64_t columns);

/* Fills its buffer with a pattern; leaves it alone, but the pattern everywhere else it can reach. */
CAFE_SECRET uint32_t edge_fill(uint8_t *out CAFE_OUT(n), uint32_t n);
CAFE_SECRET uint32_t edge_leave(uint8_t *out CAFE_OUT(n), uint32_t n);
CAFE_SECRET struct edge_padded edge_holes(uint8_t a, uint64_t b);

/* What is random here: this thread's canary, and bytes. */
CAFE_SECRET uint64_t edge_canary(uint32_t turns, uint8_t *bytes CAFE_OUT(32));

/* Ends in one of the ways that secret code can end. */
CAFE_SECRET uint32_t edge_fail(uint32_t how);
CAFE_SECRET uint32_t edge_echo(uint32_t value);

#endif
