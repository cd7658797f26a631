/* frame.c - the layout of a frame: rt_area and rt_buffer place nothing outside the slot, and nothing twice.
 */
#include "proof.h"
#include "cafe_abi.h"
#include "rt_cross.h"

/* Sizes that are used as constants by the generated stubs, and the slots there are. */
static void place(uint64_t align) {
    const uint64_t slot_bytes = proof_any(), before = proof_any(), count = proof_any();
    const uint64_t element_bytes = proof_any(), untouched = proof_any();
    uint64_t offset = before, start = untouched, end = 0;
    PROOF_ASSUME(slot_bytes >= CAFE_MIN_SLOT_BYTES && slot_bytes <= CAFE_MAX_SLOT_BYTES);
    const bool placed = rt_area(&offset, count, element_bytes, align, slot_bytes, &start);
    if (!placed) {
        PROOF_HOLDS(offset == before);
        PROOF_HOLDS(start == untouched);
        return;
    }
    PROOF_HOLDS(start >= before);
    PROOF_HOLDS(start - before < align);
    PROOF_HOLDS(start % align == 0);
    PROOF_HOLDS(offset <= slot_bytes);
    PROOF_HOLDS(offset >= start);
    PROOF_HOLDS(!__builtin_mul_overflow(count, element_bytes, &end));
    PROOF_HOLDS(offset - start == end);
}

void prove_area_16(void) {
    place(16);
}

void prove_area_64(void) {
    place(64);
}

/* What fits is placed: a slot refuses no frame that it has room for. */
void prove_area_fits(void) {
    const uint64_t before = proof_any(), bytes = proof_any();
    uint64_t offset = before, start = 0;
    PROOF_ASSUME(before <= CAFE_MIN_SLOT_BYTES && before % 16 == 0 && bytes <= CAFE_MIN_SLOT_BYTES - before);
    const bool placed = rt_area(&offset, bytes, 1, 16, CAFE_MIN_SLOT_BYTES, &start);
    PROOF_HOLDS(placed);
    PROOF_HOLDS(start == before);
    PROOF_HOLDS(offset == before + bytes);
}

/* Two areas, one after the other, have no byte in common. */
void prove_areas_apart(void) {
    const uint64_t first_bytes = proof_any(), second_bytes = proof_any();
    uint64_t offset = CAFE_SLOT_FRAME, first = 0, second = 0;
    const bool one = rt_area(&offset, first_bytes, 1, 16, CAFE_MAX_SLOT_BYTES, &first);
    PROOF_ASSUME(one);
    const bool two = rt_area(&offset, second_bytes, 8, 16, CAFE_MAX_SLOT_BYTES, &second);
    PROOF_ASSUME(two);
    PROOF_HOLDS(first >= CAFE_SLOT_FRAME);
    PROOF_HOLDS(second >= first + first_bytes);
    PROOF_HOLDS(second + 8 * second_bytes <= CAFE_MAX_SLOT_BYTES);
}

PROOF_HARNESSES({"prove_area_16", prove_area_16}, {"prove_area_64", prove_area_64},
                {"prove_area_fits", prove_area_fits}, {"prove_areas_apart", prove_areas_apart});
