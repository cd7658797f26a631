/* shim.h - a native stand-in for the enclave's runtime: what the generated secret stub needs, with checks. */
#ifndef SHIM_H
#define SHIM_H

#include "rt.h"

typedef enum cafe_status shim_entry(struct rt_call *call);
extern shim_entry *const shim_entries[];
extern const uint32_t shim_entry_count;

/* Run one request of a slot. The arena is exactly slot_bytes, so that a sanitizer sees every byte outside. A
 * callback's hook may run another one. */
enum cafe_status shim_call(struct cafe_slot *slot, uint64_t slot_bytes, uint32_t entry);

/* shim_runtime.c: where words of large buffers count from and may point to, and who runs callbacks. */
extern uint8_t *shim_region;
extern uint64_t shim_bulk_offset, shim_bulk_bytes;
extern enum cafe_status (*shim_ask)(struct rt_call *call, uint32_t number);
extern __thread struct rt_call *shim_call_now;
void shim_forget(struct rt_call *call); /* free its large buffers */

#endif
