/* Gift vouchers: codes that only the enclave can make, and that say what they are worth. */
#ifndef VOUCHER_H
#define VOUCHER_H

#include <cafe.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VOUCHER_CODE_BYTES 24  /* four groups of five symbols, three dashes and a NUL */
#define VOUCHER_TYPED_BYTES 64 /* longest code that somebody may type, with its NUL */
#define VOUCHER_MOST_CENTS 16777215

struct voucher {
    uint32_t serial;
    uint32_t cents;
};

enum voucher_result {
    VOUCHER_OK = 0,
    VOUCHER_FORGED = 1,    /* well written, but nobody issued it */
    VOUCHER_ARGUMENT = -1, /* worth nothing or too much; or no such code: a wrong length or symbol */
    VOUCHER_FAILED = -2,   /* the call could not be carried out: cafe_last_error() */
};

/* Write the code of a voucher. */
CAFE_SECRET CAFE_ON_ERROR(-2) int voucher_issue(const struct voucher *voucher CAFE_IN(1),
                                                char *code CAFE_OUT(VOUCHER_CODE_BYTES));

/* Read a code as people type it: in any case, dashes and spaces anywhere, O for 0, I and L for 1. */
CAFE_SECRET CAFE_ON_ERROR(-2) int voucher_check(const char *code CAFE_STR(VOUCHER_TYPED_BYTES),
                                                struct voucher *voucher CAFE_OUT(1));

/* Add up the worth of `count` vouchers; *bad counts the codes that are none. */
CAFE_SECRET CAFE_ON_ERROR(-2) int64_t voucher_total(const char (*codes)[VOUCHER_CODE_BYTES] CAFE_IN(count),
                                                    uint32_t count, uint32_t *bad CAFE_OUT(1));

#ifdef __cplusplus
}
#endif

#endif
