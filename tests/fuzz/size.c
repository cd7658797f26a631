/* size.c - the arithmetic of size expressions, held against the same in 128 bits. */
#include "cafe_size.h"
#include "fuzz.h"

typedef __int128 wide;

static bool fits(wide value) {
    return value >= 0 && value <= (wide)UINT64_MAX;
}

/* The exact value of a step; *refused where there is none. */
static wide exact(uint8_t step, uint64_t a, uint64_t b, bool *refused) {
    switch (step % 7) {
    case 0:
        return (wide)a + b;
    case 1:
        return (wide)a - b;
    case 2:
        *refused = a != 0 && b > UINT64_MAX / a;
        return *refused ? 0 : (wide)(a * b);
    case 3:
        *refused = b == 0;
        return b == 0 ? 0 : a / b;
    case 4:
        *refused = b == 0;
        return b == 0 ? 0 : a % b;
    case 5:
        *refused = b >= 64;
        return b >= 64 ? 0 : (wide)((unsigned __int128)a << b);
    default:
        *refused = b >= 64;
        return b >= 64 ? 0 : a >> b;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint64_t (*const steps[])(bool *, uint64_t,
                                     uint64_t) = {cafe_size_add, cafe_size_sub, cafe_size_mul, cafe_size_div,
                                                  cafe_size_mod, cafe_size_shl, cafe_size_shr};
    struct fuzz_input input = {data, size};
    bool bad = false;
    uint64_t value = fuzz_word(&input);
    while (input.left > 0) {
        const uint8_t step = fuzz_byte(&input);
        const uint64_t operand = fuzz_word(&input);
        bool refused = false, failed = bad;
        const wide wanted = exact(step, value, operand, &refused);
        const uint64_t got = steps[step % 7](&failed, value, operand);
        FUZZ_NEED(!bad || failed);
        FUZZ_NEED(bad || failed == (refused || !fits(wanted)));
        FUZZ_NEED(failed || (wide)got == wanted);
        value = got;
        bad = failed && step < 200; /* else go on as if it were the start of another expression */
    }
    return 0;
}
