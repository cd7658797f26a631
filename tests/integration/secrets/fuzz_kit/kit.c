/* kit.c - the secret code: sound, but for the one flaw that a test asks for with -DFLAW_... */
#include "kit.h"
#include "rt.h"

#include <assert.h>
#include <string.h>

/* What no guest may bring about, as long as the stubs keep their promises. */
static void check(bool good) {
    if (!good) {
        __builtin_trap();
    }
}

static uint64_t sum(const uint8_t *data, uint64_t bytes) {
    uint64_t total = 0;
    for (uint64_t i = 0; i < bytes; i++) {
        total = total * 31 + data[i];
    }
    return total;
}

#if defined FLAW_DOUBLE_FETCH || defined FLAW_SHARED || defined FLAW_OUTSIDE
static void look_at_the_slot(void) {
    struct rt_call *call = rt_current();
    uint8_t bytes[4];
#if defined FLAW_DOUBLE_FETCH
    rt_read(bytes, call->slot + CAFE_SLOT_FRAME, sizeof bytes); /* the stub has read it already */
#elif defined FLAW_SHARED
    bytes[0] = call->slot[CAFE_SLOT_FRAME];
#else
    rt_read(bytes, call->slot + call->slot_bytes - 2, sizeof bytes);
#endif
    (void)bytes;
}
#else
static void look_at_the_slot(void) {
}
#endif

int kit_sum(const uint8_t *data, uint32_t rows, uint64_t columns, bool flag, uint64_t *out) {
    uint64_t bytes = 0;
    uint8_t truth;
    memcpy(&truth, &flag, 1);
    check(truth <= 1);
    check(data == NULL || !__builtin_mul_overflow((uint64_t)rows, columns, &bytes));
    const uint64_t before = data == NULL ? 0 : sum(data, bytes);
    look_at_the_slot();
    for (uint32_t i = 0; out != NULL && i < rows; i++) {
        check(out[i] == 0);
        out[i] = before;
    }
    check(data == NULL || sum(data, bytes) == before); /* it keeps still, whatever its sender does */
    return (int)(before & 0xff);
}

int64_t kit_name(const char *text, int32_t n, uint8_t *mixed) {
    char copy[16] = {0};
    check(mixed == NULL || n >= 0);
    if (mixed != NULL) {
        memset(mixed, 1, (size_t)n + 1);
    }
    if (text == NULL) {
        return 0;
    }
    check(strlen(text) < 16);
#if defined FLAW_OVERFLOW
    memcpy(copy, text, (size_t)n % 64);
#elif defined FLAW_UNDEFINED
    n += 1;
#elif defined FLAW_ABORT
    assert(text[0] != 'x');
#elif defined FLAW_HANG
    for (volatile uint32_t i = 0; n == INT32_MAX; i++) {
    }
#endif
    memcpy(copy, text, strlen(text));
    return copy[0] + (n & 1);
}

int kit_records(uint32_t most, const struct kit_pack *pack) {
    uint8_t record[40];
    int64_t left = 1;
    uint64_t total = 0;
    if (pack != NULL && pack->data != NULL) {
        total += sum(pack->data, pack->length);
    }
    if (pack != NULL && pack->name != NULL) {
        check(strlen(pack->name) < 32);
    }
    for (uint32_t i = 0; i < most % 5 && left > 0; i++) {
        if (kit_next(record, sizeof record, &left) < 0) {
            break;
        }
#ifdef FLAW_TRUST
        total += record[left]; /* the guest's word for it */
#else
        total += record[sizeof record - 1];
#endif
        kit_log("one more");
    }
    return (int)(total & 0xff);
}
