/* native.c - runs a file of proof harnesses as property tests, with so many runs each and a seed. */
#include "proof.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state;
static uint64_t held;

static uint64_t next(void) {
    state += 0x9e3779b97f4a7c15ull;
    uint64_t word = state;
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9ull;
    word = (word ^ (word >> 27)) * 0x94d049bb133111ebull;
    return word ^ (word >> 31);
}

/* A power of two and its neighbours, a multiple of a page, a small number, or anything. */
uint64_t proof_any(void) {
    const uint64_t choice = next();
    switch (choice % 8) {
    case 0:
        return (1ull << (choice >> 8) % 64) + (choice >> 16) % 3 - 1;
    case 1:
        return (choice >> 16) % 4;
    case 2:
        return 0 - (choice >> 16) % 200;
    case 3:
        return ((choice >> 16) % 20000) * 4096;
    case 4:
        return ((choice >> 16) % 0x10000) * 16;
    case 5:
        return (choice >> 16) % 70000;
    case 6:
        return next() >> (choice >> 8) % 64;
    default:
        return next();
    }
}

void proof_spoil(void *structure, size_t bytes) {
    uint8_t *at = structure;
    for (uint64_t count = next() % 4; count > 0; count--) {
        const uint64_t word = proof_any();
        const size_t place = next() % (bytes / 4) * 4;
        memcpy(at + place, &word, bytes - place < 8 || next() % 2 == 0 ? 4 : 8);
    }
}

void proof_holds(bool holds, const char *text, const char *file, int line) {
    held++;
    if (!holds) {
        (void)fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, text);
        abort();
    }
}

int main(int argc, char **argv) {
    const uint64_t runs = argc > 1 ? strtoull(argv[1], NULL, 10) : 100000;
    state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    for (size_t i = 0; i < proof_harness_count; i++) {
        held = 0;
        for (uint64_t run = 0; run < runs; run++) {
            proof_harnesses[i].prove();
        }
        (void)printf("%s %lu runs %lu held\n", proof_harnesses[i].name, runs, held);
    }
    return 0;
}
