/* The secret this example is about: all keys are derived from it, and it is nowhere else. */
#include "keys.h"

#include <string.h>

static const uint8_t master_secret[32] = {
    0x83, 0x10, 0xc5, 0x03, 0xad, 0xe8, 0x51, 0x3e, 0x96, 0x3c, 0x63, 0xa6, 0x9d, 0xf5, 0x2b, 0x3c,
    0x90, 0xea, 0x7d, 0x0f, 0x1e, 0x0f, 0x0b, 0xda, 0x72, 0xeb, 0xd5, 0x61, 0x47, 0x33, 0x6f, 0x54,
};

/* The account of RFC 6238's appendix B, whose published key repeats these digits. */
static const char rfc_account[] = "rfc6238", rfc_digits[] = "1234567890";

size_t derive_key(const struct hash_kind *kind, const char *account, uint8_t key[HASH_MAX_BYTES]) {
    size_t length = strlen(account);
    if (strcmp(account, rfc_account) == 0) {
        for (size_t i = 0; i < kind->digest_bytes; i++)
            key[i] = (uint8_t)rfc_digits[i % (sizeof rfc_digits - 1)];
    } else {
        hmac(kind, master_secret, sizeof master_secret, (const uint8_t *)account, length, key);
    }
    return kind->digest_bytes;
}
