/* rt_calling_back.c - callbacks: what the guest may answer, or do instead, while secret code waits for it. */
#include "play.h"

#include <errno.h>
#include <string.h>

#define CALLBACK 5u

enum { ASK = 0, ECHO = 1, FOREIGN = 2, ASK_TWICE = 3 };

static uint32_t turn, nested, deepest;
static enum cafe_status said[2 * CAFE_MAX_NESTING];
static int left[2 * CAFE_MAX_NESTING];
static uint16_t control[2];

static uint16_t x87(void) {
    uint16_t word;
    __asm__ volatile("fnstcw %0" : "=m"(word));
    return word;
}

/* Makes a callback, and tells what became of it. */
enum cafe_status play_entry_0(struct rt_call *call) {
    const uint16_t strange = 0x27f, usual = 0x37f;
    const uint32_t depth = call->depth;
    NEED(call == rt_current() && x87() == usual);
    deepest = depth > deepest ? depth : deepest;
    memset(call->arena + CAFE_SLOT_FRAME, 0x5e, 64);
    call->offset = CAFE_SLOT_FRAME + 64;
    errno = 0;
    __asm__ volatile("fldcw %0" : : "m"(strange));
    said[depth] = rt_callback(call, CALLBACK);
    control[depth != 0] = x87();
    __asm__ volatile("fldcw %0" : : "m"(usual));
    left[depth] = errno;
    for (uint32_t i = 0; i < 64; i++)
        NEED(call->arena[CAFE_SLOT_FRAME + i] == 0x5e); /* a nested call has its own */
    call->shared->result[0] = (uint8_t)said[depth];
    errno = 0;
    return CAFE_OK;
}

enum cafe_status play_entry_1(struct rt_call *call) {
    NEED(call->outer && call->depth == call->outer->depth + 1 && call->arena[CAFE_SLOT_FRAME] == 0);
    nested++;
    call->shared->result[0] = 77;
    return CAFE_OK;
}

/* From a call that is not this thread's innermost one. */
enum cafe_status play_entry_2(struct rt_call *call) {
    struct rt_call other = *call;
    said[0] = rt_callback(&other, CALLBACK);
    return CAFE_OK;
}

/* Goes on after the guest has gone. */
enum cafe_status play_entry_3(struct rt_call *call) {
    said[0] = rt_callback(call, CALLBACK);
    said[1] = rt_callback(call, CALLBACK);
    return CAFE_OK;
}

static struct cafe_slot *slot;
static void (*guest)(void); /* once for each sleep */

static void vmm(enum cafe_exit reason, uint64_t argument) {
    (void)argument;
    const struct cafe_monitor_vcpu *own = &play_monitor.vcpus[0];
    NEED(own->started == own->finished); /* no time counts while the guest thinks */
    if (reason == CAFE_EXIT_IDLE)
        guest();
}

static void run(void (*with)(void)) {
    play_start(1);
    slot = play_slot(0, 0);
    turn = nested = deepest = 0;
    guest = with;
    play_vmm = vmm;
    memset(said, 0xff, sizeof said);
    play_serve(rt_serve);
}

static bool asked(void) {
    uint32_t number;
    memcpy(&number, slot->result, sizeof number);
    for (uint32_t i = sizeof number; i < CAFE_RESULT_BYTES; i++)
        NEED(slot->result[i] == 0);
    return play_answered(slot) && slot->status == CAFE_STATUS_CALLBACK && number == CALLBACK;
}

static void give_back(uint32_t returned) {
    NEED(asked());
    slot->returned = returned;
    play_ask(slot, CAFE_ENTRY_RETURN);
}

/* ---- what it says of itself */

static const struct {
    uint32_t returned, status;
    int error;
} words[] = {{0, CAFE_OK, 0},
             {CAFE_E_CALLBACK, CAFE_E_CALLBACK, 0},
             {CAFE_E_CALLBACK + 1, CAFE_E_MALFORMED, 0},
             {0xffff, CAFE_E_MALFORMED, 0},
             {CAFE_STATUS_CALLBACK, CAFE_E_MALFORMED, 0},
             {11u << 16, CAFE_OK, 11},
             {CAFE_MAX_ERRNO << 16, CAFE_OK, (int)CAFE_MAX_ERRNO},
             {(CAFE_MAX_ERRNO + 1) << 16, CAFE_OK, EIO},
             {~0u, CAFE_E_MALFORMED, EIO}};
#define WORDS (sizeof words / sizeof words[0])

static void answers(void) {
    const uint32_t number = turn / 2;
    if (turn % 2 == 1) {
        give_back(words[number].returned);
    } else {
        if (number > 0) {
            NEED(play_answered(slot) && slot->status == CAFE_OK);
            NEED(said[0] == words[number - 1].status && left[0] == words[number - 1].error);
        }
        if (number == WORDS)
            play_leave();
        play_ask(slot, ASK);
    }
    turn++;
}

/* ---- what it does instead */

static void numbers(void) {
    switch (turn++) {
    case 0: /* nothing is pending: no such call */
        play_ask(slot, CAFE_ENTRY_RETURN);
        return;
    case 1:
        NEED(play_answered(slot) && slot->status == CAFE_E_ENTRY);
        play_ask(slot, ASK);
        return;
    case 2: /* a return whose number is not the next */
        NEED(asked());
        slot->entry = CAFE_ENTRY_RETURN;
        slot->request = slot->reply + 2;
        return;
    case 3:
        NEED(play_answered(slot) && slot->status == CAFE_E_MALFORMED && said[0] == (enum cafe_status) ~0u);
        play_ask(slot, 4); /* no such function */
        return;
    case 4:
        NEED(play_answered(slot) && slot->status == CAFE_E_ENTRY);
        play_ask(slot, ECHO);
        return;
    case 5:
        NEED(play_answered(slot) && slot->status == CAFE_OK && slot->result[0] == 77 && nested == 1);
        slot->returned = CAFE_E_LIMIT;
        play_ask(slot, CAFE_ENTRY_RETURN);
        return;
    default:
        NEED(play_answered(slot) && slot->status == CAFE_OK && slot->result[0] == CAFE_E_LIMIT);
        NEED(control[0] == 0x27f); /* the nested call's fresh state was not the caller's */
        play_leave();
    }
}

/* It sleeps until the answer, or changes its mind; other slots have to wait. */
static void waits(void) {
    switch (turn++) {
    case 0:
        play_ask(slot, ASK);
        return;
    case 1:
        slot->waiting = 1;
        play_ask(play_slot(0, 1), FOREIGN);
        return;
    case 2:
        NEED(!play_answered(play_slot(0, 1)));
        give_back(0);
        return;
    default:
        NEED(play_answered(slot) && play_answered(play_slot(0, 1)) && said[0] == CAFE_E_CALLBACK);
        play_leave();
    }
}

/* It answers just before the vCPU would sleep. */
static void returns_late(uint64_t now) {
    if (now - rt_cpu.since == rt_cpu.budget && turn == 1 && slot->status == CAFE_STATUS_CALLBACK) {
        turn++;
        give_back(0);
    }
}

static void hurries(void) {
    play_clock = returns_late;
    if (turn++ == 2) {
        NEED(play_answered(slot) && said[0] == CAFE_OK);
        play_leave();
    }
    play_ask(slot, ASK);
}

/* Nested to the limit; then no memory for one more; then back out. */
static void dives(void) {
    if (turn < CAFE_MAX_NESTING) {
        NEED(turn == 0 || asked());
        turn++;
        play_ask(slot, ASK);
        return;
    }
    switch (turn++ - CAFE_MAX_NESTING) {
    case 0:
        NEED(asked() && deepest == CAFE_MAX_NESTING - 1);
        play_ask(slot, ECHO);
        return;
    case 1:
        NEED(play_answered(slot) && slot->status == CAFE_E_LIMIT && nested == 0);
        slot->returned = 0;
        play_ask(slot, CAFE_ENTRY_RETURN);
        return;
    case 2:
        NEED(play_answered(slot) && slot->status == CAFE_OK && said[CAFE_MAX_NESTING - 1] == CAFE_OK);
        play_fail_memory = 1;
        play_ask(slot, ECHO);
        return;
    default:
        NEED(play_answered(slot) && (turn > CAFE_MAX_NESTING + 4 || slot->status == CAFE_E_LIMIT));
        if (said[0] != (enum cafe_status) ~0u)
            play_leave();
        play_ask(slot, CAFE_ENTRY_RETURN);
    }
}

/* Its region is taken away: secret code hears of it, each time, and the region is free afterwards. */
static void goes(void) {
    switch (turn++) {
    case 0:
        play_ask(slot, ASK_TWICE);
        return;
    case 1:
        play_detach(0);
        return;
    default:
        NEED(said[0] == CAFE_E_EXITED && said[1] == CAFE_E_EXITED && play_monitor.settled[0] == 2);
        play_leave();
    }
}

static void nobody_can_be_called_before_the_first_call(void) {
    rt_cpu = (struct rt_cpu){0};
    NEED(rt_current() == NULL);
}

int main(void) {
    nobody_can_be_called_before_the_first_call();
    run(answers);
    run(numbers);
    run(waits);
    run(hurries);
    run(dives);
    NEED(nested == 0);
    run(goes);
    (void)puts("all good");
    return 0;
}
