/* sizes.c - cafe_size.h is exact, or it says that it is not. */
#include "proof.h"
#include "cafe_size.h"

#define TOP 0xffffffffffffffffull

void prove_size_add(void) {
    const uint64_t a = proof_any(), b = proof_any();
    bool bad = false;
    const uint64_t sum = cafe_size_add(&bad, a, b);
    PROOF_HOLDS(bad == (a > TOP - b));
    PROOF_HOLDS(bad || (sum >= a && sum - a == b));
}

void prove_size_sub(void) {
    const uint64_t a = proof_any(), b = proof_any();
    bool bad = false;
    const uint64_t difference = cafe_size_sub(&bad, a, b);
    PROOF_HOLDS(bad == (b > a));
    PROOF_HOLDS(bad || (difference <= a && a - difference == b));
}

void prove_size_mul(void) {
    const uint64_t a = proof_any(), b = proof_any();
    bool bad = false;
    const uint64_t product = cafe_size_mul(&bad, a, b);
    PROOF_HOLDS(bad == (b != 0 && a > TOP / b));
    PROOF_HOLDS(bad || (b == 0 ? product == 0 : product / b == a && product % b == 0));
}

void prove_size_div(void) {
    const uint64_t a = proof_any(), b = proof_any();
    bool bad = false;
    const uint64_t quotient = cafe_size_div(&bad, a, b), rest = cafe_size_mod(&bad, a, b);
    PROOF_HOLDS(bad == (b == 0));
    PROOF_HOLDS(bad || (rest < b && quotient <= a && quotient * b + rest == a));
}

void prove_size_signed(void) {
    const int64_t value = (int64_t)proof_any();
    bool bad = false;
    const uint64_t size = cafe_size_signed(&bad, value);
    PROOF_HOLDS(bad == (value < 0));
    PROOF_HOLDS(bad || size == (uint64_t)value);
}

/* Shifts: by 64 and more they are refused, never undefined; by less, nothing is lost unseen. */
void prove_size_shl(void) {
    const uint64_t a = proof_any(), b = proof_any();
    bool bad = false;
    const uint64_t shifted = cafe_size_shl(&bad, a, b);
    PROOF_HOLDS(bad || b < 64);
    PROOF_HOLDS(bad || shifted >> b == a);
}

void prove_size_shr(void) {
    const uint64_t a = proof_any(), b = proof_any();
    bool bad = false;
    const uint64_t shifted = cafe_size_shr(&bad, a, b);
    PROOF_HOLDS(bad == (b >= 64));
    PROOF_HOLDS(bad || shifted == a >> b);
}

/* `*bad` is never taken back: what failed in the middle of an expression fails it. */
void prove_size_bad_stays(void) {
    const uint64_t a = proof_any(), b = proof_any();
    bool bad = true;
    (void)cafe_size_add(&bad, a, b);
    (void)cafe_size_sub(&bad, a, b);
    (void)cafe_size_mul(&bad, a, b);
    (void)cafe_size_div(&bad, a, b);
    (void)cafe_size_mod(&bad, a, b);
    (void)cafe_size_shl(&bad, a, b);
    (void)cafe_size_shr(&bad, a, b);
    (void)cafe_size_signed(&bad, (int64_t)a);
    PROOF_HOLDS(bad);
}

PROOF_HARNESSES({"prove_size_add", prove_size_add}, {"prove_size_sub", prove_size_sub},
                {"prove_size_mul", prove_size_mul}, {"prove_size_div", prove_size_div},
                {"prove_size_signed", prove_size_signed}, {"prove_size_shl", prove_size_shl},
                {"prove_size_shr", prove_size_shr}, {"prove_size_bad_stays", prove_size_bad_stays});
