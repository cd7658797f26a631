/* shim.h - a native stand-in for the enclave's runtime: what the generated secret stub needs, with checks. */
#ifndef SHIM_H
#define SHIM_H

#include "rt.h"

typedef enum cafe_status shim_entry(struct rt_call *call);
extern shim_entry *const shim_entries[];
extern const uint32_t shim_entry_count;

/* Run one request of a slot. The arena is exactly slot_bytes, so that a sanitizer sees every byte outside. */
enum cafe_status shim_call(struct cafe_slot *slot, uint64_t slot_bytes, uint32_t entry);

#endif
