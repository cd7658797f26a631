/* thread.h - what libcafe keeps for one thread: a cache line or two, found with one instruction. */
#ifndef CAFE_THREAD_H
#define CAFE_THREAD_H

#include <stdbool.h>
#include <stdint.h>

#pragma GCC visibility push(hidden)

struct cafe_call;

struct cafe_thread {
    struct cafe_call *open; /* the innermost call; its `outer` leads to the others */
    uint32_t owner;         /* this thread's number, where a seat's word has it; 0: none yet */
    uint32_t seat;          /* the one it had last */
    uint32_t status;        /* enum cafe_status: what the last call ended with */
    bool launching;

    /* wait.c */
    uint32_t budget;  /* cycles to spin for a reply */
    uint32_t blocked; /* calls that slept since it last paid to spin for long */
    uint32_t probe;   /* after so many of them, try again */

    /* turn.c */
    uint32_t granted;         /* futex word: it has `seat` */
    uint64_t since;           /* TSC, when it got its turn */
    struct cafe_thread *next; /* behind it in the queue */
};

/* Initial-exec: the library may be loaded late, but is small enough for what the loader keeps free. */
extern __thread struct cafe_thread cafe_me __attribute__((tls_model("initial-exec")));

/* The address is computed once, not at every use; and a compiler that knew where it comes from might test the
 * flags of an addition that the linker replaces by one without. */
static inline struct cafe_thread *cafe_self(void) {
    struct cafe_thread *me = &cafe_me;
    __asm__("" : "+r"(me));
    return me;
}

#pragma GCC visibility pop

#endif
