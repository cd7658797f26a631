/* Padding and chaining common to the hashes, and HMAC over any of them. */
#include "hash.h"

#include <string.h>

void hash_start(struct hash *hash, const struct hash_kind *kind) {
    hash->kind = kind;
    hash->bytes = 0;
    memcpy(hash->state, kind->start, sizeof hash->state);
}

void hash_add(struct hash *hash, const void *data, size_t bytes) {
    const uint8_t *from = data;
    size_t held = hash->bytes % hash->kind->block_bytes;
    hash->bytes += bytes;
    while (bytes) {
        size_t part = hash->kind->block_bytes - held;
        part = bytes < part ? bytes : part;
        memcpy(hash->block + held, from, part);
        held += part;
        from += part;
        bytes -= part;
        if (held == hash->kind->block_bytes) {
            hash->kind->compress(hash->state, hash->block);
            held = 0;
        }
    }
}

void hash_finish(struct hash *hash, uint8_t *digest) {
    static const uint8_t padding[HASH_MAX_BLOCK] = {0x80};
    const struct hash_kind *kind = hash->kind;
    uint64_t bits = hash->bytes * 8;
    size_t held = hash->bytes % kind->block_bytes, room = kind->block_bytes - kind->length_bytes;
    hash_add(hash, padding, (held < room ? room : room + kind->block_bytes) - held);
    uint8_t length[16] = {0};
    for (size_t i = 0; i < 8; i++)
        length[kind->length_bytes - 1 - i] = (uint8_t)(bits >> 8 * i);
    hash_add(hash, length, kind->length_bytes);
    size_t word = kind == &hash_sha512 ? 8 : 4;
    for (size_t i = 0; i < kind->digest_bytes; i++)
        digest[i] = (uint8_t)(hash->state[i / word] >> 8 * (word - 1 - i % word));
    memset(hash, 0, sizeof *hash);
}

void hmac(const struct hash_kind *kind, const uint8_t *key, size_t key_bytes, const uint8_t *data,
          size_t data_bytes, uint8_t *digest) {
    struct hash hash;
    uint8_t pad[HASH_MAX_BLOCK] = {0};
    if (key_bytes > kind->block_bytes) {
        hash_start(&hash, kind);
        hash_add(&hash, key, key_bytes);
        hash_finish(&hash, pad);
    } else {
        memcpy(pad, key, key_bytes);
    }
    for (size_t i = 0; i < kind->block_bytes; i++)
        pad[i] ^= 0x36;
    hash_start(&hash, kind);
    hash_add(&hash, pad, kind->block_bytes);
    hash_add(&hash, data, data_bytes);
    hash_finish(&hash, digest);
    for (size_t i = 0; i < kind->block_bytes; i++)
        pad[i] ^= 0x36 ^ 0x5c;
    hash_start(&hash, kind);
    hash_add(&hash, pad, kind->block_bytes);
    hash_add(&hash, digest, kind->digest_bytes);
    hash_finish(&hash, digest);
    memset(pad, 0, sizeof pad);
}
