/* The secret side. `planted` is what the tests search for wherever it must not be. */
#include "probe.h"

static const uint8_t planted[32] = {
    0xd5, 0x1e, 0x77, 0x8a, 0x03, 0xf9, 0x42, 0xb6, 0x6c, 0x90, 0x2d, 0xe1, 0x58, 0x3b, 0xc7, 0x14,
    0xa4, 0x09, 0xfe, 0x61, 0xb3, 0x27, 0xcd, 0x5a, 0x85, 0x38, 0xf0, 0x1c, 0x9b, 0x66, 0xd2, 0x4f,
};

int64_t probe_echo(int64_t x) {
    return x;
}

int64_t probe_forever(void) {
    for (volatile int i = 0;; i++)
        ;
}

int64_t probe_fault(void) {
    __asm__ volatile("ud2");
    return 0;
}

int64_t probe_secret(uint8_t *masked, uint64_t mask) {
    for (int i = 0; i < 32; i++)
        masked[i] = planted[i] ^ (uint8_t)(mask >> (i % 8 * 8));
    return 32;
}
