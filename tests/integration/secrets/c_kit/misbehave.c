/* What an ordinary program should not do, and what calls must not see of each other. */
#include "kit.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct registers {
    uint16_t fcw, fsw;
    uint8_t ftw, reserved;
    uint16_t fop;
    uint64_t fip, fdp;
    uint32_t mxcsr, mask;
    uint8_t rest[480];
} __attribute__((aligned(16)));

uint64_t kit_state(void) {
    struct registers now = {0};
    __asm__ volatile("fxsave64 %0" : "=m"(now));
    uint64_t bits = 0;
    for (size_t i = 0; i < 256 + 128; i++) /* x87 and vector registers */
        bits |= now.rest[i];
    return bits | (uint64_t)(now.mxcsr & 0xffffu) << 16 | (uint64_t)now.fcw << 32 | (uint64_t)now.ftw << 48;
}

uint64_t kit_dirty(void) {
    static const uint64_t pattern[2] = {0x1122334455667788, 0x99aabbccddeeff00};
    uint32_t mxcsr = 0x9fc0;
    uint16_t fcw = 0x27f;
    __asm__ volatile("movdqu %0, %%xmm0\n\tmovdqu %0, %%xmm7\n\tmovdqu %0, %%xmm15\n\tfldpi\n\tfldl2e\n\t"
                     "ldmxcsr %1\n\tfldcw %2\n\tpushfq\n\torq $0x40400, (%%rsp)\n\tpopfq"
                     :
                     : "m"(pattern), "m"(mxcsr), "m"(fcw)
                     : "memory", "cc");
    return 1;
}

int32_t kit_flags(void) {
    uint64_t flags;
    __asm__ volatile("pushfq\n\tpopq %0" : "=r"(flags));
    return (int32_t)(flags & 0x40400);
}

/* Returns with string instructions running backwards, as no compiler would. */
int32_t kit_backwards(uint8_t *bytes, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(i * 7 + 1);
    __asm__ volatile("std" : : : "memory", "cc");
    return 1;
}

int32_t kit_smash(uint32_t n) {
    volatile char buffer[16];
    for (uint32_t i = 0; i < n; i++)
        ((volatile char *)buffer)[i] = 'A';
    return buffer[0];
}

int32_t kit_double_free(uint32_t which) {
    static char outside[64];
    char *a = malloc(100), *b = malloc(100), *c = malloc(100);
    void *volatile wrong[] = {a, b, c, outside + 16, a + 16};
    free(b);
    free(a);
    if (which > 0)
        free(wrong[(which - 1) % 5]);
    free(c);
    return 7;
}

int32_t kit_abort(void) {
    abort();
}

int32_t kit_assert(int32_t x) {
    assert(x == 1);
    return x;
}

int32_t kit_write(uint64_t which) {
    uint64_t targets[] = {0, (uint64_t)(uintptr_t)&kit_write, (uint64_t)(uintptr_t)"constant", 0x1000};
    *(volatile uint32_t *)(uintptr_t)targets[which & 3] = 1;
    return 1;
}

int32_t kit_overflow(int32_t depth) // NOLINT: this is what it is for
{
    volatile char space[1024];
    space[0] = (char)depth;
    return depth ? kit_overflow(depth - 1) + space[0] : 0;
}

int32_t kit_system_call(void) {
    return (int32_t)getpid();
}

int32_t kit_forever(void) {
    for (volatile int i = 0;; i++)
        ;
}

int64_t kit_echo(int64_t x) {
    return x;
}
