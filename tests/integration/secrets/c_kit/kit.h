/* One function for everything that must work inside an enclave. */
#ifndef KIT_H
#define KIT_H

#include <cafe.h>
#include <stdint.h>

CAFE_SECRET int64_t kit_constructed(void);
CAFE_SECRET int64_t kit_thread_local(void);
CAFE_SECRET uint32_t kit_sort(double *values CAFE_INOUT(n), uint32_t n, uint32_t descending);
CAFE_SECRET int32_t kit_format(double d, int32_t i, char *text CAFE_OUT(size), uint32_t size);
CAFE_SECRET double kit_math(double x, uint32_t which);
CAFE_SECRET int32_t kit_jump(int32_t which, int32_t x);
CAFE_SECRET uint64_t kit_heap(uint32_t rounds, uint64_t seed);
CAFE_SECRET uint64_t kit_aligned(uint64_t align, uint64_t bytes);
CAFE_SECRET uint64_t kit_huge(void);
CAFE_SECRET int32_t kit_random(uint8_t *bytes CAFE_OUT(n), uint32_t n);
CAFE_SECRET int64_t kit_versions(const int32_t *values CAFE_IN(n), uint32_t n);
CAFE_SECRET int32_t kit_wide(char *text CAFE_OUT(size), uint32_t size);
CAFE_SECRET uint64_t kit_state(void); /* what the last call left in vector, x87 and control registers */
CAFE_SECRET uint64_t kit_dirty(void); /* leaves all of them changed */
CAFE_SECRET int32_t kit_flags(void);  /* DF and AC at entry */
CAFE_SECRET int32_t kit_backwards(uint8_t *bytes CAFE_OUT(n), uint32_t n);
CAFE_SECRET int32_t kit_smash(uint32_t n);
CAFE_SECRET int32_t kit_double_free(uint32_t which);
CAFE_SECRET int32_t kit_abort(void);
CAFE_SECRET int32_t kit_assert(int32_t x);
CAFE_SECRET int32_t kit_write(uint64_t which);
CAFE_SECRET int32_t kit_overflow(int32_t depth);
CAFE_SECRET int32_t kit_system_call(void);
CAFE_SECRET int32_t kit_forever(void);
CAFE_SECRET int64_t kit_echo(int64_t x);

#endif
