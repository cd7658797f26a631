/* Hash functions of FIPS 180-4 and HMAC (RFC 2104), as far as one-time codes need them. */
#ifndef HASH_H
#define HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_MAX_BYTES 64u  /* digest of SHA-512 */
#define HASH_MAX_BLOCK 128u /* block of SHA-512 */

struct hash_kind {
    size_t digest_bytes, block_bytes, length_bytes;
    const uint64_t *start; /* initial state, a word of the digest each */
    void (*compress)(uint64_t state[8], const uint8_t *block);
};

extern const struct hash_kind hash_sha1, hash_sha256, hash_sha512;

struct hash {
    const struct hash_kind *kind;
    uint64_t state[8];
    uint64_t bytes;
    uint8_t block[HASH_MAX_BLOCK];
};

void hash_start(struct hash *hash, const struct hash_kind *kind);
void hash_add(struct hash *hash, const void *data, size_t bytes);
void hash_finish(struct hash *hash, uint8_t *digest);

/* Write kind->digest_bytes bytes. */
void hmac(const struct hash_kind *kind, const uint8_t *key, size_t key_bytes, const uint8_t *data,
          size_t data_bytes, uint8_t *digest);

#endif
