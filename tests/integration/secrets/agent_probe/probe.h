/* What the tests of the agent call: something that answers, something that does not, something that faults.
 */
#ifndef PROBE_H
#define PROBE_H

#include <cafe.h>
#include <stdint.h>

CAFE_SECRET CAFE_ON_ERROR(-1) int64_t probe_echo(int64_t x);
CAFE_SECRET CAFE_ON_ERROR(-1) int64_t probe_forever(void);
CAFE_SECRET CAFE_ON_ERROR(-1) int64_t probe_fault(void);
CAFE_SECRET CAFE_ON_ERROR(-1) int64_t probe_secret(uint8_t *masked CAFE_OUT(32), uint64_t mask);

#endif
