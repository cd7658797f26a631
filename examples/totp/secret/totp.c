/* Codes of RFC 4226 over the time steps of RFC 6238. */
#include "totp.h"
#include "keys.h"

#include <stdio.h>
#include <string.h>

#define STEP_SECONDS 30u
#define MOST_WINDOW 10u

static const struct hash_kind *kind_of(uint32_t hash) {
    switch (hash) {
    case TOTP_SHA1:
        return &hash_sha1;
    case TOTP_SHA256:
        return &hash_sha256;
    case TOTP_SHA512:
        return &hash_sha512;
    default:
        return NULL;
    }
}

/* RFC 4226 section 5.3: 31 bits at an offset that the last half byte names. */
static uint32_t truncate(const uint8_t *digest, size_t bytes) {
    const uint8_t *at = digest + (digest[bytes - 1] & 0xf);
    return (at[0] & 0x7fu) << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void write_code(const struct hash_kind *kind, const uint8_t *key, uint64_t step, uint32_t digits,
                       char code[TOTP_CODE_BYTES]) {
    static const uint32_t powers[] = {1000000, 10000000, 100000000};
    uint8_t counter[8], digest[HASH_MAX_BYTES];
    for (unsigned i = 0; i < sizeof counter; i++)
        counter[i] = (uint8_t)(step >> (56 - 8 * i));
    hmac(kind, key, kind->digest_bytes, counter, sizeof counter, digest);
    uint32_t value = truncate(digest, kind->digest_bytes) % powers[digits - 6];
    snprintf(code, TOTP_CODE_BYTES, "%0*u", (int)digits, value);
    memset(digest, 0, sizeof digest);
}

int totp_code(const char *account, uint64_t time, uint32_t hash, uint32_t digits, char *code) {
    const struct hash_kind *kind = kind_of(hash);
    if (!kind || !account || !*account || !code || digits < 6 || digits > 8)
        return TOTP_ARGUMENT;
    uint8_t key[HASH_MAX_BYTES];
    derive_key(kind, account, key);
    write_code(kind, key, time / STEP_SECONDS, digits, code);
    memset(key, 0, sizeof key);
    return TOTP_OK;
}

static uint32_t differences(const char *a, const char *b, size_t bytes) {
    uint32_t found = 0;
    for (size_t i = 0; i < bytes; i++)
        found |= (unsigned char)a[i] ^ (uint32_t)(unsigned char)b[i];
    return found;
}

int totp_verify(const char *account, uint64_t time, uint32_t hash, const char *code, uint32_t window,
                int32_t *drift) {
    const struct hash_kind *kind = kind_of(hash);
    size_t digits = code ? strlen(code) : 0;
    if (!kind || !account || !*account || !drift || digits < 6 || digits > 8 || window > MOST_WINDOW)
        return TOTP_ARGUMENT;
    uint8_t key[HASH_MAX_BYTES];
    derive_key(kind, account, key);
    int result = TOTP_WRONG;
    for (int32_t i = -(int32_t)window; i <= (int32_t)window; i++) {
        char right[TOTP_CODE_BYTES];
        write_code(kind, key, time / STEP_SECONDS + (uint64_t)(int64_t)i, (uint32_t)digits, right);
        if (!differences(right, code, digits)) {
            result = TOTP_OK;
            *drift = i;
        }
    }
    memset(key, 0, sizeof key);
    return result;
}
