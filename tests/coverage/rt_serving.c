/* rt_serving.c - the loop of a vCPU: each thing a guest can do to it, between two of its looks. It includes
 * the runtime's file, to be another vCPU in the middle of something. */
#include "play.h"

#include "../../cafe_lib/runtime/rt_serve.c"

#include <errno.h>

static uint32_t exits[CAFE_EXIT_REST + 1], turn, served;
static uint64_t last_place;

static enum cafe_status called(struct rt_call *call, enum cafe_status status) {
    NEED(call == rt_cpu.call && call->outer == NULL && call->shared == call->own->shared);
    NEED(play_monitor.vcpus[rt_cpu.number].started == play_monitor.vcpus[rt_cpu.number].finished + 1);
    served++;
    return status;
}

enum cafe_status play_entry_0(struct rt_call *call) {
    call->offset = 200;
    call->shared->result[0] = 7;
    return called(call, CAFE_OK);
}

/* Leaves secrets wherever it can; its frame is said to be larger than the slot. */
enum cafe_status play_entry_1(struct rt_call *call) {
    memset(call->arena, 0x5e, PLAY_SLOT_BYTES);
    call->offset = call->slot_bytes + 1;
    errno = 5;
    return called(call, CAFE_OK);
}

enum cafe_status play_entry_2(struct rt_call *call) {
    errno = CAFE_MAX_ERRNO + 1;
    return called(call, CAFE_OK);
}

/* Fails, with something in the result's place and in errno. */
enum cafe_status play_entry_3(struct rt_call *call) {
    memset(call->shared->result, 0x5e, sizeof call->shared->result);
    errno = 9;
    call->offset = 700;
    return called(call, CAFE_E_LIMIT);
}

static void count(enum cafe_exit reason, uint64_t argument) {
    exits[reason]++;
    if (reason == CAFE_EXIT_WAKE || reason == CAFE_EXIT_REST)
        last_place = argument;
}

static uint32_t all_exits(void) {
    return exits[CAFE_EXIT_IDLE] + exits[CAFE_EXIT_WAKE] + exits[CAFE_EXIT_REST];
}

static void start(uint32_t vcpus) {
    memset(regions, 0, sizeof regions);
    memset(exits, 0, sizeof exits);
    turn = served = 0;
    play_start(vcpus);
}

/* ---- calls, one after the other */

static void expect(const struct cafe_slot *slot, uint32_t status, uint32_t error) {
    NEED(play_answered(slot) && slot->status == (status | error << 16));
    for (uint32_t i = 0; status != CAFE_OK && i < CAFE_RESULT_BYTES; i++)
        NEED(slot->result[i] == 0);
    for (uint32_t i = CAFE_SLOT_FRAME; i < 700; i++)
        NEED(rt_cpu.arena[i] == 0);
}

static void calls(enum cafe_exit reason, uint64_t argument) {
    static const uint32_t entries[] = {0, 1, 2, 3, 4, ~0u, CAFE_ENTRY_RETURN, 1u << 31, 0};
    static const uint32_t statuses[] = {0, 0, 0, CAFE_E_LIMIT, 3, 3, 3, 3, 0}, errors[] = {[1] = 5, [8] = 0};
    struct cafe_slot *slot = play_slot(0, 1);
    count(reason, argument);
    if (reason != CAFE_EXIT_IDLE)
        return;
    if (turn > 0)
        expect(slot, statuses[turn - 1], errors[turn - 1]);
    if (turn == sizeof entries / sizeof entries[0])
        play_leave();
    play_ask(slot, entries[turn++]);
}

static void every_call_is_answered(void) {
    start(1);
    play_vmm = calls;
    play_serve(rt_serve);
    NEED(served == 5 && play_slot(0, 0)->reply == 0 && exits[CAFE_EXIT_WAKE] == 0);
    play_boot.isa = CAFE_ISA_X86_64_V3;
    if (__builtin_cpu_supports("avx")) {
        turn = 0;
        play_serve(rt_serve);
    }
}

/* ---- numbers that are not the next */

static void numbers(enum cafe_exit reason, uint64_t argument) {
    static const uint32_t ahead[] = {2, 7, 1u << 31, ~0u, 1};
    struct cafe_slot *slot = play_slot(0, 0);
    count(reason, argument);
    if (turn > 0) {
        NEED(play_answered(slot));
        NEED((slot->status == CAFE_E_MALFORMED) == (ahead[turn - 1] != 1));
    }
    if (turn == sizeof ahead / sizeof ahead[0])
        play_leave();
    slot->entry = 0;
    slot->request = slot->reply + ahead[turn++];
}

static void numbers_that_jump_are_no_calls(void) {
    start(1);
    play_vmm = numbers;
    play_serve(rt_serve);
    NEED(served == 1);
}

/* ---- waking */

/* Is woken once for each answer, whatever the guest keeps writing there. Where polling does not pay, waking
 * and sleeping are one exit. */
static void waking(enum cafe_exit reason, uint64_t argument) {
    struct cafe_slot *slot = play_slot(0, 1);
    count(reason, argument);
    if (reason == CAFE_EXIT_WAKE)
        return;
    if (++turn > 200)
        play_leave();
    slot->waiting = turn % 2;
    if (turn % 4 == 1)
        play_ask(slot, 0);
}

static void guests_that_wait_are_woken_once(void) {
    start(1);
    play_vmm = waking;
    play_serve(rt_serve);
    NEED(served == 50 && last_place == 1 && exits[CAFE_EXIT_WAKE] + exits[CAFE_EXIT_REST] <= 50);
    NEED(exits[CAFE_EXIT_WAKE] > 0 && exits[CAFE_EXIT_REST] > 0 && exits[CAFE_EXIT_IDLE] > 0);
    NEED(rt_cpu.budget <= PLAY_SPIN && rt_cpu.budget >= PLAY_SPIN / LEAST_BUDGET / 2);
}

/* It may also begin to wait after the last answer, or while another vCPU has its slot: that one wakes it. */
static void late(enum cafe_exit reason, uint64_t argument) {
    struct cafe_slot *slot = play_slot(0, 0);
    count(reason, argument);
    turn += reason == CAFE_EXIT_IDLE;
    if (turn == 1 && reason == CAFE_EXIT_IDLE) {
        play_ask(slot, 0);
    } else if (turn == 2 && reason == CAFE_EXIT_IDLE) {
        regions[0].slots[0].claimed = 1;
        slot->waiting = 1;
    } else if (turn == 3 && reason == CAFE_EXIT_IDLE) {
        NEED(exits[CAFE_EXIT_WAKE] + exits[CAFE_EXIT_REST] == 0);
        regions[0].slots[0].claimed = 0;
    } else if (turn > 3 || reason != CAFE_EXIT_IDLE) {
        play_leave();
    }
}

static void guests_that_wait_late_are_woken(void) {
    start(1);
    play_vmm = late;
    play_serve(rt_serve);
    NEED(exits[CAFE_EXIT_WAKE] + exits[CAFE_EXIT_REST] == 1 && last_place == 0);
}

/* ---- several vCPUs */

static void shared(enum cafe_exit reason, uint64_t argument) {
    count(reason, argument);
    if (reason != CAFE_EXIT_IDLE)
        return;
    switch (turn++) {
    case 0: /* another has claimed the slot before we do */
        regions[0].slots[0].claimed = 1;
        play_ask(play_slot(0, 0), 0);
        return;
    case 1: /* it has served it; ours is the next one */
        NEED(served == 0);
        regions[0].slots[0].served = play_slot(0, 0)->reply = play_slot(0, 0)->request;
        regions[0].slots[0].claimed = 0;
        play_ask(play_slot(0, 0), 0);
        return;
    default:
        NEED(served == 1 && play_answered(play_slot(0, 0)));
        play_leave();
    }
}

/* Another vCPU serves it between our look at it and our claim. */
static void overtake(void) {
    struct rt_slot *slot = &regions[0].slots[0];
    if (slot->served != slot->shared->request && served == 1)
        slot->served = slot->shared->reply = slot->shared->request;
}

static void overtaken(enum cafe_exit reason, uint64_t argument) {
    count(reason, argument);
    if (turn++ == 2)
        play_leave();
    play_ask(play_slot(0, 0), 1);
    play_claim = overtake;
}

static void slots_are_shared_out(void) {
    start(2);
    play_vmm = shared;
    play_serve(rt_serve);
    start(2);
    play_vmm = overtaken;
    play_serve(rt_serve);
    NEED(served == 1 && play_answered(play_slot(0, 0)));
}

/* ---- a request that comes just before the vCPU would sleep */

static void ask_late(uint64_t now) {
    if (now - rt_cpu.since == rt_cpu.budget && turn++ < 5)
        play_ask(play_slot(1, 1), 0);
}

static void asleep(enum cafe_exit reason, uint64_t argument) {
    count(reason, argument);
    play_leave();
}

static void last_look_sees_it(void) {
    start(1);
    play_attach(1);
    play_vmm = asleep;
    play_clock = ask_late;
    play_serve(rt_serve);
    NEED(served == 5 && turn == 6 && play_answered(play_slot(1, 1)));
}

/* ---- processes that come and go */

static void passing(enum cafe_exit reason, uint64_t argument) {
    struct cafe_slot *slot = play_slot(1, 0);
    count(reason, argument);
    if (reason == CAFE_EXIT_YIELD) { /* we wait while another vCPU settles the region; now it is done */
        regions[1].settling = 0;
        return;
    }
    switch (turn++) {
    case 0:
        play_attach(1);
        regions[1].settling = 1;
        play_ask(slot, 0);
        return;
    case 1: /* a call of another vCPU is left there: nothing is settled yet */
        NEED(served == 1 && play_answered(slot) && exits[CAFE_EXIT_YIELD] == 1);
        regions[1].slots[1].claimed = 1;
        play_detach(1);
        return;
    case 2:
        NEED(play_monitor.settled[1] == 0 && regions[1].attached == 1);
        regions[1].slots[1].claimed = 0;
        return;
    case 3:
        NEED(play_monitor.settled[1] == 2 && regions[1].attached == 2);
        slot->request = 9; /* nobody's */
        slot->waiting = 1;
        return;
    case 4:
        NEED(served == 1);
        play_attach(1); /* the next one finds nothing asked */
        slot->waiting = 0;
        return;
    case 5:
        NEED(served == 1 && regions[1].attached == 3 && play_monitor.settled[1] == 2);
        play_ask(slot, 0);
        return;
    default:
        NEED(served == 2 && play_answered(slot));
        play_leave();
    }
}

static void processes_come_and_go(void) {
    for (uint32_t vcpus = 1; vcpus <= 2; vcpus++) {
        start(vcpus);
        play_vmm = passing;
        play_serve(rt_serve);
    }
}

/* Between the look at the monitor and the lock another vCPU has settled it. */
static void settled_by_another(void) {
    start(2);
    play_monitor.attached[0] = 3;
    regions[0].attached = 3;
    regions[0].slots[0].served = 77;
    settle(0);
    NEED(regions[0].slots[0].served == 77 && regions[0].settling == 0);
}

/* A hostile guest writes all over its slots at every turn; the other process is served all the same. */
static void hostile(enum cafe_exit reason, uint64_t argument) {
    static uint64_t state = 1;
    count(reason, argument);
    NEED((argument >> 32) < PLAY_REGIONS && (uint32_t)argument < PLAY_SLOTS);
    for (uint32_t i = 0; i < PLAY_SLOTS; i++) {
        uint32_t *words = (uint32_t *)(void *)play_slot(0, i);
        for (uint32_t word = 0; word < 20; word++) {
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            words[word] = (uint32_t)(state >> 60 ? state >> 62 : state >> 32);
        }
    }
    struct cafe_slot *good = play_slot(1, 0);
    NEED(turn == 0 || play_answered(good) || reason != CAFE_EXIT_IDLE);
    if (++turn > 3000)
        play_leave();
    if (play_answered(good))
        play_ask(good, 0);
}

static void floods_harm_nobody(void) {
    start(1);
    play_attach(1);
    play_vmm = hostile;
    play_serve(rt_serve);
    NEED(all_exits() > 0 && served > 0);
}

int main(void) {
    every_call_is_answered();
    numbers_that_jump_are_no_calls();
    guests_that_wait_are_woken_once();
    guests_that_wait_late_are_woken();
    slots_are_shared_out();
    last_look_sees_it();
    processes_come_and_go();
    settled_by_another();
    floods_harm_nobody();
    (void)puts("all good");
    return 0;
}
