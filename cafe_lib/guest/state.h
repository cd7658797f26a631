/* state.h - what libcafe keeps for one protected library, and which of its files does what with it. */
#ifndef CAFE_STATE_H
#define CAFE_STATE_H

#include "cafe_guest.h"
#include "thread.h"

#include <pthread.h>
#include <sched.h>

#define CAFE_MESSAGE_BYTES 256u
#define CAFE_EXIT_CODE 70 /* EX_SOFTWARE: a call failed and the interface names no value to return */

#pragma GCC visibility push(hidden)

/* What a slot's seat is at. Between calls a thread keeps its seat, so that it finds the slot's lines in its
 * cache. The channel changes only while every seat is ABSENT or STALE. */
enum cafe_seat_state {
    CAFE_SEAT_ABSENT = 0, /* there is no such slot now */
    CAFE_SEAT_FREE = 1,
    CAFE_SEAT_IDLE = 2,   /* its thread is between two calls; anyone may take it over */
    CAFE_SEAT_BUSY = 3,   /* its thread is in a call */
    CAFE_SEAT_ASLEEP = 4, /* its thread sleeps until a reply comes */
    CAFE_SEAT_OUT = 5,    /* its thread is in a callback */
    CAFE_SEAT_STALE = 6,  /* its enclave ended while its thread was in a callback */
};
#define CAFE_SEAT_STATE 7u
#define CAFE_SEAT_TURN 8u /* counts among those that may spin; see turn.c */
#define CAFE_SEAT_OWNER 4 /* where its thread's number begins */

struct cafe_seat {
    uint32_t word;     /* thread's number, CAFE_SEAT_TURN or not, enum cafe_seat_state. Atomic */
    uint32_t sequence; /* of the last request in this slot; its thread's */
    uint8_t pad[CAFE_CACHE_LINE - 8];
};

/* The queue for a turn. Under `lock`, which is held for moments only. */
struct cafe_turns {
    pthread_mutex_t lock;
    struct cafe_thread *first, *last;
    uint32_t seats; /* 0: closed, since there is no channel */
    uint32_t width; /* how many threads may spin */
    cpu_set_t cpus; /* that calling threads may run on, as far as is known */
};

/* A channel's memory. Its blocks and the list are under the state's `bulk_lock`. */
struct cafe_mapping {
    struct cafe_mapping *next; /* an older one that the program still holds memory of */
    uint8_t *region;
    uint64_t region_bytes, device, inode;
    uint64_t bulk, bulk_bytes; /* the area for large buffers */
    uint64_t touched;          /* its end, as far as it was ever used */
    struct cafe_block *blocks; /* in use, by offset */
    bool kept;                 /* a thread in a callback may still touch it */
};

struct cafe_state {
    struct cafe_seat seats[CAFE_MAX_SLOTS];

    /* read by every call; the channel's part changes under `lock` while no seat is in use */
    uint8_t *region;
    uint64_t slot_bytes;
    uint32_t broken;  /* enum cafe_status: why this side gave the channel up; 0: it did not. Atomic */
    uint32_t waiters; /* threads in the queue. Atomic */
    uint32_t slot_count;
    struct cafe_mapping *mapping; /* the present one first */
    const struct cafe_binding *binding;
    struct cafe_state *next; /* of all protected libraries of the process */
    uint8_t *range;          /* PROT_NONE, image_bytes long; NULL if it could not be had */

    /* launching, under `lock` */
    pthread_mutex_t lock;
    int connection;  /* to the agent, or -1 */
    uint64_t number; /* of the last launch request */
    uint32_t attempts;
    enum cafe_status failure; /* of the last attempt */
    char message[CAFE_MESSAGE_BYTES];

    struct cafe_turns turns;
    pthread_mutex_t bulk_lock;
};

static inline struct cafe_channel_header *cafe_header(const struct cafe_state *state) {
    return (struct cafe_channel_header *)(void *)state->region;
}

/* error.c */
void cafe_error_set(enum cafe_status status, const char *detail); /* not CAFE_OK */
const char *cafe_error_sentence(enum cafe_status status);
bool cafe_status_known(uint32_t status);
__attribute__((noreturn)) void cafe_end_process(const char *function);

/* register.c */
struct cafe_state *cafe_first_state(void);
struct cafe_state *cafe_find_state(const char *library);

/* trap.c */
void cafe_trap_install(void);

/* fork.c */
void cafe_fork_install(void);

/* channel.c */
enum cafe_status cafe_channel_map(struct cafe_state *state, int fd, uint64_t region_bytes);
/* Why the channel is of no more use; CAFE_OK while it is. The caller holds a seat or the lock. */
enum cafe_status cafe_channel_reason(const struct cafe_state *state);
void cafe_channel_break(struct cafe_state *state, enum cafe_status status);

/* launch.c: under `lock`, no seat in use. On success the channel is mapped. */
enum cafe_status cafe_launch(struct cafe_state *state);
bool cafe_agent_gone(const struct cafe_state *state);

/* seat.c: the slow ways to a seat and from it; seat.h has the quick ones. `hurry`: the call interrupts
 * another of its thread, and must not wait for it. */
enum cafe_status cafe_seat_take(struct cafe_state *state, bool hurry, uint32_t *seat);
void cafe_seat_pause(struct cafe_state *state, uint32_t seat, enum cafe_seat_state as);
bool cafe_seat_resume(struct cafe_state *state, uint32_t seat); /* false: STALE, not to be used */

/* turn.c */
enum cafe_turn { CAFE_TURN_TAKEN, CAFE_TURN_CLOSED, CAFE_TURN_NONE };
void cafe_turns_start(struct cafe_state *state);
enum cafe_turn cafe_turn_take(struct cafe_state *state, bool hurry, uint32_t *seat);
void cafe_turn_release(struct cafe_state *state, uint32_t seat);
void cafe_turn_offer(struct cafe_state *state); /* somebody who holds a turn has stopped spinning */
void cafe_turns_set(struct cafe_state *state, uint32_t seats); /* 0: close */

/* renew.c: a channel that lives, or why there is none; `attempts_seen` before the caller missed it */
enum cafe_status cafe_renew(struct cafe_state *state, uint32_t attempts_seen);

/* wait.c */
enum cafe_status cafe_wait_reply(struct cafe_call *call, struct cafe_slot *slot, uint32_t number);

/* call.c: publish a request and wait for its reply */
enum cafe_status cafe_call_exchange(struct cafe_call *call, uint32_t entry, uint32_t returned);
/* call.c: give back blocks and seat */
void cafe_call_leave(struct cafe_call *call);

/* callback.c: after a reply that was not simply a success */
void cafe_call_resume(struct cafe_call *call, enum cafe_status status, uint32_t answer);

/* bulk.c: memory in the bulk area of a mapping */
bool cafe_bulk_known(struct cafe_state *state);                              /* is there a channel? */
struct cafe_block *cafe_bulk_take(struct cafe_state *state, uint64_t bytes); /* NULL: no room */
uint8_t *cafe_bulk_memory(const struct cafe_block *block, uint64_t *offset); /* offset in the region */
void cafe_bulk_populate(struct cafe_state *state, struct cafe_block *block);
void cafe_bulk_chain(struct cafe_block *block, struct cafe_block **chain);
void cafe_bulk_give(struct cafe_state *state, struct cafe_block *blocks);        /* a chain */
bool cafe_bulk_holds(struct cafe_state *state, uint64_t offset, uint64_t bytes); /* within one block */
bool cafe_bulk_free(struct cafe_state *state, const uint8_t *memory);            /* false: not here */
void cafe_bulk_drop(struct cafe_state *state, struct cafe_mapping *mapping);     /* under `bulk_lock` */

/* futex.c: FUTEX_WAIT and FUTEX_WAKE; `shared` between processes or not */
void cafe_futex_wait(uint32_t *word, uint32_t value, long microseconds, bool shared);
void cafe_futex_wake(uint32_t *word, int threads, bool shared);

#pragma GCC visibility pop

#endif
