/* broken.c - claims that are false: a tool that proves one of them, or a run that survives one, is broken. */
#include "proof.h"
#include "cafe_abi.h"
#include "cafe_size.h"
#include "rt_cross.h"

void prove_slot_is_never_full(void) {
    const uint64_t bytes = proof_any();
    uint64_t offset = CAFE_SLOT_FRAME, start = 0;
    const bool placed = rt_area(&offset, bytes, 1, 64, CAFE_MIN_SLOT_BYTES, &start);
    PROOF_ASSUME(placed);
    PROOF_HOLDS(offset < CAFE_MIN_SLOT_BYTES);
}

void prove_areas_start_where_the_last_ended(void) {
    uint64_t offset = proof_any(), start = 0;
    const uint64_t before = offset;
    const bool placed = rt_area(&offset, 16, 1, 16, CAFE_MIN_SLOT_BYTES, &start);
    PROOF_ASSUME(placed);
    PROOF_HOLDS(start == before);
}

void prove_sums_fit_into_32_bits(void) {
    const uint64_t a = proof_any(), b = proof_any();
    bool bad = false;
    const uint64_t sum = cafe_size_add(&bad, a, b);
    PROOF_ASSUME(!bad);
    PROOF_HOLDS(sum <= UINT32_MAX);
}

PROOF_HARNESSES({"prove_slot_is_never_full", prove_slot_is_never_full},
                {"prove_areas_start_where_the_last_ended", prove_areas_start_where_the_last_ended},
                {"prove_sums_fit_into_32_bits", prove_sums_fit_into_32_bits});
