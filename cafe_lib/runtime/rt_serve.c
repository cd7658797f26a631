/* The loop of every vCPU: find requests in the slots of all regions, answer them, rest when there are none.
 */
#include "rt.h"

#include <string.h>

#define EAGER_TURNS 64u
#define HOT_TURNS 16u /* looks at the hot slot for one at all others */
#define CLOCK_TURNS 4u
#define LEAST_BUDGET 32u /* of the longest: what polling may last when it does not pay */
#define PROBE_NAPS 64u   /* every so often polling gets a chance to pay again */

#pragma GCC visibility push(hidden)
extern const uint32_t __cafe_exports[], __cafe_exports_end[]; /* image offsets */
#pragma GCC visibility pop

__thread struct rt_cpu rt_cpu;

/* All regions' slots. `attached` is the monitor's word that they belong to; even: nobody's. */
static struct region {
    uint32_t attached, settling;
    struct rt_slot slots[CAFE_MAX_SLOTS];
} regions[CAFE_MAX_REGIONS];

static uint32_t load(const uint32_t *word) {
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* `index` if it is below `count`, else 0, even where the CPU speculates past the check before. */
static uint64_t clamp(uint64_t index, uint64_t count) {
    uint64_t mask;
    __asm__("cmpq %2, %1\n\tsbbq %0, %0" : "=r"(mask) : "r"(index), "r"(count) : "cc");
    return index & mask;
}

bool rt_attached(const struct rt_slot *slot) {
    return load(&rt_cpu.monitor->attached[slot->region]) == load(&regions[slot->region].attached);
}

void rt_serve_start(const struct cafe_boot *boot) {
    for (uint32_t region = 0; region < boot->region_count; region++)
        for (uint32_t i = 0; i < boot->slot_count; i++) {
            uint8_t *start = (uint8_t *)(uintptr_t)(boot->channel + region * boot->channel_stride);
            uint8_t *slot = start + CAFE_CHANNEL_HEADER_BYTES + i * boot->slot_bytes;
            regions[region].slots[i] = (struct rt_slot){
                .start = start, .shared = (struct cafe_slot *)(void *)slot, .region = region, .index = i};
        }
}

void rt_begin(const struct rt_slot *slot) {
    struct cafe_monitor_vcpu *own = rt_cpu.own;
    own->region = slot->region;
    own->slot = slot->index;
    __atomic_store_n(&own->started, own->started + 1, __ATOMIC_RELEASE);
}

void rt_end(void) {
    __atomic_store_n(&rt_cpu.own->finished, rt_cpu.own->started, __ATOMIC_RELEASE);
}

/* What the call left behind in registers and memory. */
void rt_forget(struct rt_call *call) {
    const uint64_t used = call->offset < call->slot_bytes ? call->offset : call->slot_bytes;
    if (used > CAFE_SLOT_FRAME)
        memset(call->arena + CAFE_SLOT_FRAME, 0, used - CAFE_SLOT_FRAME);
    rt_large_free(call);
    __asm__ volatile("" : : "r"(call->arena) : "memory"); /* the wipe is not dead code */
    rt_fresh(rt_cpu.boot->isa >= CAFE_ISA_X86_64_V3);     /* last: libc may wipe with vector registers */
}

enum cafe_status rt_run(struct rt_call *call) {
    const uint64_t entry = *(volatile uint32_t *)&call->shared->entry;
    const uint64_t exports = (uint64_t)(__cafe_exports_end - __cafe_exports);
    if (entry >= exports)
        return CAFE_E_ENTRY;
    const uint64_t place = rt_cpu.boot->base + __cafe_exports[clamp(entry, exports)];
    call->outer = rt_cpu.call;
    rt_cpu.call = call;
    *rt_cpu.error = 0;
    const enum cafe_status status = rt_enter((rt_entry_function *)(uintptr_t)place, call);
    rt_cpu.call = call->outer;
    return status;
}

void rt_answer(struct rt_slot *slot, uint32_t status) {
    struct cafe_slot *shared = slot->shared;
    const uint32_t left = (uint32_t)*rt_cpu.error;
    const uint32_t error = status == CAFE_OK && left <= CAFE_MAX_ERRNO ? left : 0;
    if (status != CAFE_OK && status != CAFE_STATUS_CALLBACK)
        memset(shared->result, 0, sizeof shared->result);
    shared->status = status | error << 16;
    __atomic_store_n(&shared->reply, slot->served, __ATOMIC_RELEASE);
}

/* A request that is not the next number is no call. */
static void serve(struct rt_slot *slot, uint32_t request) {
    struct rt_call call = {
        .shared = slot->shared, .arena = rt_cpu.arena, .slot_bytes = rt_cpu.boot->slot_bytes, .own = slot};
    call.slot = (const volatile uint8_t *)call.shared;
    const bool next = request == slot->served + 1;
    slot->served = request;
    rt_begin(slot);
    const enum cafe_status status = next ? rt_run(&call) : CAFE_E_MALFORMED;
    rt_answer(slot, status);
    rt_forget(&call);
    rt_end();
}

/* Asleep in between, polling cannot have paid; every so often it gets another chance. */
static void slept(void) {
    const uint64_t longest = rt_cpu.boot->spin_cycles, least = longest / LEAST_BUDGET;
    rt_cpu.budget = rt_cpu.budget / 2 > least ? rt_cpu.budget / 2 : least;
    if (++rt_cpu.naps % PROBE_NAPS == 0)
        rt_cpu.budget = longest;
    rt_cpu.napped = true;
}

/* The guest thread sets `waiting` and then looks at `reply` again; we look at `waiting` in every turn, so
 * that no fence is needed between the two. Where polling does not pay, waking and sleeping are one exit. */
void rt_wake(struct rt_slot *slot) {
    const bool rest = rt_cpu.budget <= rt_cpu.boot->spin_cycles / LEAST_BUDGET;
    slot->woken = slot->served;
    rt_exit(rest ? CAFE_EXIT_REST : CAFE_EXIT_WAKE, (uint64_t)slot->region << 32 | slot->index);
    if (rest)
        slept();
}

/* One vCPU alone need not ask the others. */
static bool claim(struct rt_slot *slot) {
    if (rt_cpu.boot->vcpu_count > 1)
        return __atomic_exchange_n(&slot->claimed, 1, __ATOMIC_SEQ_CST) == 0;
    slot->claimed = 1;
    return true;
}

/* A vCPU that has claimed the slot, and then finds its process still there, may answer. */
static bool look(struct rt_slot *slot) {
    const struct cafe_slot *shared = slot->shared;
    if (load(&shared->request) == slot->served) {
        if (load(&shared->waiting) && slot->woken != slot->served && !load(&slot->claimed))
            rt_wake(slot);
        return false;
    }
    if (!claim(slot))
        return false;
    const uint32_t request = load(&shared->request);
    const bool mine = rt_attached(slot) && request != slot->served;
    if (mine)
        serve(slot, request);
    __atomic_store_n(&slot->claimed, 0, __ATOMIC_RELEASE);
    if (mine && load(&shared->waiting))
        rt_wake(slot);
    return mine;
}

/* A process has come or gone. Its predecessor's calls have all ended before anything is done about it.
 * Whoever lets go of a slot comes here before it sleeps, and waits for another that may have found it
 * claimed. */
static void settle(uint32_t number) {
    struct region *region = &regions[number];
    for (uint32_t turn = 0; __atomic_exchange_n(&region->settling, 1, __ATOMIC_SEQ_CST) != 0; turn++)
        rt_pause(turn);
    const uint32_t attached = load(&rt_cpu.monitor->attached[number]);
    bool busy = load(&region->attached) == attached; /* another vCPU was faster */
    for (uint32_t i = 0; i < rt_cpu.boot->slot_count; i++)
        busy |= load(&region->slots[i].claimed) != 0;
    for (uint32_t i = 0; !busy && i < rt_cpu.boot->slot_count; i++)
        region->slots[i].served = region->slots[i].woken = load(&region->slots[i].shared->reply);
    if (!busy) {
        __atomic_store_n(&region->attached, attached, __ATOMIC_SEQ_CST);
        if (attached % 2 == 0)
            __atomic_store_n(&rt_cpu.monitor->settled[number], attached, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&region->settling, 0, __ATOMIC_RELEASE);
}

static bool look_everywhere(void) {
    bool served = false;
    for (uint32_t i = 0; i < rt_cpu.boot->region_count; i++) {
        const uint32_t attached = load(&rt_cpu.monitor->attached[i]);
        if (attached != load(&regions[i].attached))
            settle(i);
        for (uint32_t slot = 0; attached % 2 && slot < rt_cpu.boot->slot_count; slot++)
            if (look(&regions[i].slots[slot])) {
                rt_cpu.hot = &regions[i].slots[slot];
                served = true;
            }
    }
    return served;
}

void rt_nap(void) {
    rt_exit(CAFE_EXIT_IDLE, 0);
    slept();
}

/* A caller that calls again at once finds us looking at full speed; `pause` comes a moment later. */
bool rt_idle(uint32_t turns) {
    if (turns > EAGER_TURNS)
        __builtin_ia32_pause();
    if (turns % CLOCK_TURNS)
        return false;
    const uint64_t now = __builtin_ia32_rdtsc();
    if (turns == 0)
        rt_cpu.since = now;
    if (now - rt_cpu.since < rt_cpu.budget)
        return false;
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* answers are visible before the last look at `waiting` */
    return true;
}

_Noreturn void rt_serve(void) {
    for (uint32_t looks = 0, turns = 0;; looks++) {
        bool served = rt_cpu.hot && look(rt_cpu.hot);
        if (looks % HOT_TURNS == 0)
            served |= look_everywhere();
        if (served) {
            if (!rt_cpu.napped && rt_cpu.budget < rt_cpu.boot->spin_cycles)
                rt_cpu.budget *= 2;
            rt_cpu.napped = false;
            turns = 0;
        } else if (rt_idle(turns++)) {
            if (!look_everywhere())
                rt_nap();
            turns = 0;
        }
    }
}
