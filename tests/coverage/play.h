/* play.h - an enclave in ordinary memory: boot page, monitor, regions, and functions that calls may name. */
#ifndef PLAY_H
#define PLAY_H

#include "rt_play.h"

#define PLAY_REGIONS 2u
#define PLAY_SLOTS 2u
#define PLAY_SLOT_BYTES 4096u
#define PLAY_BULK 4194304u /* a multiple of CAFE_BULK_ALIGN */
#define PLAY_SPIN 20000u
#define PLAY_LOOK 100u /* cycles from one look at the clock to the next */

extern struct cafe_boot play_boot;
extern struct cafe_monitor play_monitor;
extern uint8_t *play_regions; /* PLAY_STRIDE from one to the next */
#define PLAY_STRIDE (2u * CAFE_BULK_ALIGN + PLAY_BULK)

/* What the VMM is asked for comes here. */
extern void (*play_vmm)(enum cafe_exit reason, uint64_t argument);
extern void (*play_clock)(uint64_t now); /* each time it is read, if not null */
extern void (*play_claim)(void);         /* before each claim, if not null */
extern uint32_t play_fail_memory;        /* so many of the next allocations fail */

/* Everything as at a fresh start with so many vCPUs; region 0 attached. */
void play_start(uint32_t vcpus);
void play_be(uint32_t vcpu); /* this thread is that vCPU */
void play_attach(uint32_t region);
void play_detach(uint32_t region);

/* Run `serve` until the VMM's part says `play_leave`. */
void play_serve(void (*serve)(void));
_Noreturn void play_leave(void);

struct cafe_slot *play_slot(uint32_t region, uint32_t slot);
void play_ask(struct cafe_slot *slot, uint32_t entry);
bool play_answered(const struct cafe_slot *slot);

/* The secret functions, by number; each test has its own. */
enum { PLAY_ENTRIES = 4 };
extern rt_entry_function play_entry_0, play_entry_1, play_entry_2, play_entry_3;

#endif
