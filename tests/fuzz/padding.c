/* padding.c - clearing what holds no value touches the holes of the elements and nothing else. */
#include "cafe_padding.h"
#include "fuzz.h"

#define MOST_HOLES 8u
#define MOST_ELEMENT 64u
#define MOST_ELEMENTS 16u

static uint8_t mask_of(const struct cafe_hole *holes, uint32_t count, uint64_t place) {
    uint8_t mask = 0xff;
    for (uint32_t i = 0; i < count; i++) {
        if (place >= holes[i].offset && place - holes[i].offset < holes[i].count) {
            mask = (uint8_t)(mask & holes[i].mask);
        }
    }
    return mask;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input input = {data, size};
    struct cafe_hole holes[MOST_HOLES];
    const uint64_t element = fuzz_byte(&input) % MOST_ELEMENT + 1,
                   elements = fuzz_byte(&input) % MOST_ELEMENTS;
    const uint32_t count = fuzz_byte(&input) % MOST_HOLES;
    for (uint32_t i = 0; i < count; i++) { /* inside the element, as the generator makes them */
        holes[i].offset = (uint32_t)(fuzz_byte(&input) % element);
        holes[i].count = (uint32_t)(fuzz_byte(&input) % (element - holes[i].offset + 1));
        holes[i].mask = fuzz_byte(&input);
    }
    const size_t bytes = element * elements;
    uint8_t *cleared = malloc(bytes + 1), *before = malloc(bytes + 1); /* + 1: malloc(0) may be NULL */
    FUZZ_NEED(cleared != NULL && before != NULL);
    fuzz_take(&input, before, bytes + 1);
    memcpy(cleared, before, bytes + 1);
    cafe_clear_padding(cleared, elements, element, holes, count);
    for (size_t i = 0; i < bytes; i++) {
        FUZZ_NEED(cleared[i] == (before[i] & mask_of(holes, count, i % element)));
    }
    FUZZ_NEED(cleared[bytes] == before[bytes]);
    free(cleared);
    free(before);
    return 0;
}
