/*
 * proof.h - what a proof harness is written in. The same file is read three ways: by CBMC and by Frama-C's
 * WP, where `proof_any` is every value there is, and compiled natively, where it is a random or an edge
 * value.
 *
 * A harness is a function `void prove_NAME(void)`: take any values, assume what a caller promises, call, then
 * say what must hold. PROOF_HARNESSES lists the file's harnesses.
 */
#ifndef PROOF_H
#define PROOF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__CPROVER__) || defined(__CPROVER)
uint64_t nondet_u64(void);
#define proof_any() nondet_u64()
#define proof_any_struct(pointer, make) ((void)0) /* a local variable that is not set is anything */
#define PROOF_ASSUME(condition) __CPROVER_assume(condition)
#define PROOF_HOLDS(condition) __CPROVER_assert(condition, #condition)
#define PROOF_HARNESSES(...)

#elif defined(__FRAMAC__)
/* WP knows the typed builtins; uint64_t is unsigned long on the only machine there is. */
#define __builtin_add_overflow(a, b, r) __builtin_uaddl_overflow(a, b, r)
#define __builtin_sub_overflow(a, b, r) __builtin_usubl_overflow(a, b, r)
#define __builtin_mul_overflow(a, b, r) __builtin_umull_overflow(a, b, r)
#define vector_size(bytes) packed /* how rt_cross.h copies is not what is proven */
/*@ assigns \nothing; */ uint64_t proof_any(void);
/*@ requires holds != 0; assigns \nothing; */ void proof_holds(int holds);
/* Of masks that align, and of products, the provers know too little. lemmas.smt2 proves the same, the masks
 * over bit-vectors; keep the two in step. */
/*@ axiomatic lemmas {
      axiom mask_16: \forall integer x; 0 <= x <= 0xffffffffffffffff ==>
        (x & 0xfffffffffffffff0) == x - x % 16;
      axiom mask_64: \forall integer x; 0 <= x <= 0xffffffffffffffff ==>
        (x & 0xffffffffffffffc0) == x - x % 64;
      axiom mask_2m: \forall integer x; 0 <= x <= 0xffffffffffffffff ==>
        (x & 0xffffffffffe00000) == x - x % 0x200000;
      axiom one_more: \forall integer a, b, c; 0 <= a < b && 0 <= c ==> a * c + c <= b * c;
    } */
#define proof_any_struct(pointer, make) ((void)0)
#define PROOF_ASSUME(condition)                                                                              \
    if (!(condition))                                                                                        \
    return
#define PROOF_HOLDS(condition) proof_holds(condition)
#define PROOF_HARNESSES(...)

#else
/* A random value, or one of those at which arithmetic goes wrong. */
uint64_t proof_any(void);
void proof_holds(bool holds, const char *text, const char *file, int line);
/* A structure: `make` sets a good one, of which some words then become anything. */
void proof_spoil(void *structure, size_t bytes);
#define proof_any_struct(pointer, make) (make(pointer), proof_spoil(pointer, sizeof *(pointer)))
struct proof_harness {
    const char *name;
    void (*prove)(void);
};
extern const struct proof_harness proof_harnesses[];
extern const size_t proof_harness_count;
#define PROOF_ASSUME(condition)                                                                              \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            return;                                                                                          \
        }                                                                                                    \
    } while (0)
#define PROOF_HOLDS(condition) proof_holds(condition, #condition, __FILE__, __LINE__)
#define PROOF_HARNESSES(...)                                                                                 \
    const struct proof_harness proof_harnesses[] = {__VA_ARGS__};                                            \
    const size_t proof_harness_count = sizeof proof_harnesses / sizeof proof_harnesses[0]
#endif

#endif
