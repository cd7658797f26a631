/* One-time codes (RFC 6238) from keys that never leave the enclave. */
#ifndef TOTP_H
#define TOTP_H

#include <cafe.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TOTP_ACCOUNT_BYTES 64 /* longest account name, with its NUL */
#define TOTP_CODE_BYTES 9     /* up to 8 digits and a NUL */

enum totp_hash { TOTP_SHA1 = 1, TOTP_SHA256 = 2, TOTP_SHA512 = 3 };

enum totp_result {
    TOTP_OK = 0,
    TOTP_WRONG = 1,     /* the code is not valid at this time */
    TOTP_ARGUMENT = -1, /* unknown hash, digits not 6 to 8, empty account */
    TOTP_FAILED = -2,   /* the call could not be carried out: cafe_last_error() */
};

/* Write the code of `account` at `time` (seconds since 1970, steps of 30) with 6 to 8 digits. */
CAFE_SECRET CAFE_ON_ERROR(-2) int totp_code(const char *account CAFE_STR(TOTP_ACCOUNT_BYTES), uint64_t time,
                                            uint32_t hash, uint32_t digits,
                                            char *code CAFE_OUT(TOTP_CODE_BYTES));

/* Compare `code` with the account's codes up to `window` steps before and after `time`; *drift is the step
 * that matched. Takes the same time whatever the code is. */
CAFE_SECRET CAFE_ON_ERROR(-2) int totp_verify(const char *account CAFE_STR(TOTP_ACCOUNT_BYTES), uint64_t time,
                                              uint32_t hash, const char *code CAFE_STR(TOTP_CODE_BYTES),
                                              uint32_t window, int32_t *drift CAFE_OUT(1));

#ifdef __cplusplus
}
#endif

#endif
