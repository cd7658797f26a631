/* state.h - what libcafe keeps for one protected library, and which of its files does what with it. */
#ifndef CAFE_STATE_H
#define CAFE_STATE_H

#include "cafe_guest.h"

#include <pthread.h>

#define CAFE_MESSAGE_BYTES 256u
#define CAFE_EXIT_CODE 70 /* EX_SOFTWARE: a call failed and the interface names no value to return */

#pragma GCC visibility push(hidden)

/* Who may use a slot. Whoever holds one seat may touch the channel; it is unmapped when all are ABSENT. */
enum cafe_seat_state { CAFE_SEAT_FREE = 0, CAFE_SEAT_TAKEN = 1, CAFE_SEAT_ABSENT = 2 };

struct cafe_seat {
    uint32_t taken;    /* enum cafe_seat_state; atomic */
    uint32_t sequence; /* of the last request in this slot; its holder's */
    uint8_t pad[CAFE_CACHE_LINE - 8];
};

struct cafe_state {
    struct cafe_seat seats[CAFE_MAX_SLOTS];
    const struct cafe_binding *binding;
    struct cafe_state *next; /* of all protected libraries of the process */
    uint8_t *range;          /* PROT_NONE, image_bytes long; NULL if it could not be had */

    /* the channel: changed under `lock` while every seat is ABSENT */
    uint8_t *region;
    uint64_t region_bytes, slot_bytes, spin_cycles;
    uint32_t slot_count;
    uint32_t broken; /* enum cafe_status: why this side gave the channel up; 0: it did not. Atomic */

    /* launching, under `lock` */
    pthread_mutex_t lock;
    int connection;  /* to the agent, or -1 */
    uint64_t number; /* of the last launch request */
    uint32_t attempts;
    enum cafe_status failure; /* of the last attempt */
    char message[CAFE_MESSAGE_BYTES];

    uint32_t waiters;  /* threads that want a seat */
    uint32_t releases; /* futex word: seats given back while somebody waited */
};

/* error.c */
void cafe_error_set(enum cafe_status status, const char *detail);
const char *cafe_error_sentence(enum cafe_status status);
bool cafe_status_known(uint32_t status);
__attribute__((noreturn)) void cafe_end_process(const char *function);

/* register.c */
struct cafe_state *cafe_first_state(void);

/* trap.c */
void cafe_trap_install(void);

/* fork.c */
void cafe_fork_install(void);

/* channel.c */
enum cafe_status cafe_channel_map(struct cafe_state *state, int fd, uint64_t region_bytes);
void cafe_channel_unmap(struct cafe_state *state);
/* Why the channel is of no more use; CAFE_OK while it is. The caller holds a seat or the lock. */
enum cafe_status cafe_channel_ended(struct cafe_state *state);
void cafe_channel_break(struct cafe_state *state, enum cafe_status status);

/* launch.c: under `lock`, all seats ABSENT. On success the channel is mapped. */
enum cafe_status cafe_launch(struct cafe_state *state);
bool cafe_agent_gone(const struct cafe_state *state);

/* seat.c */
enum cafe_status cafe_seat_take(struct cafe_state *state, uint32_t *seat);
void cafe_seat_release(struct cafe_state *state, uint32_t seat);

/* wait.c */
enum cafe_status cafe_wait_reply(struct cafe_state *state, struct cafe_slot *slot, uint32_t number);

/* futex.c: FUTEX_WAIT and FUTEX_WAKE; `shared` between processes or not */
void cafe_futex_wait(uint32_t *word, uint32_t value, long milliseconds, bool shared);
void cafe_futex_wake(uint32_t *word, int threads, bool shared);

#pragma GCC visibility pop

#endif
