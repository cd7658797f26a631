/* Keys of accounts. */
#ifndef KEYS_H
#define KEYS_H

#include "hash.h"

/* Write the key of `account` for codes made with `kind`; return its length, kind->digest_bytes. */
size_t derive_key(const struct hash_kind *kind, const char *account, uint8_t key[HASH_MAX_BYTES]);

#endif
