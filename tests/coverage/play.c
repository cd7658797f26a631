/* play.c - see play.h. */
#define _GNU_SOURCE
#include "play.h"

#include <errno.h>
#include <setjmp.h>
#include <string.h>
#include <sys/mman.h>

#undef calloc
#undef aligned_alloc

struct cafe_boot play_boot;
struct cafe_monitor play_monitor;
uint8_t *play_regions;
void (*play_vmm)(enum cafe_exit reason, uint64_t argument);
void (*play_clock)(uint64_t now);
void (*play_claim)(void);
uint32_t play_fail_memory;
static uint64_t play_now;
static __thread jmp_buf leave;
static __thread uint8_t arena[PLAY_SLOT_BYTES] __attribute__((aligned(64)));

/* The export table, filled at the start: offsets from the lowest of the functions. */
extern uint32_t play_exports[PLAY_ENTRIES];
__asm__(".pushsection .data\n .balign 4\n .globl play_exports, __cafe_exports, __cafe_exports_end\n"
        "play_exports:\n__cafe_exports:\n .zero 16\n__cafe_exports_end:\n .popsection\n");

static uint64_t fill_exports(void) {
    rt_entry_function *const entries[] = {play_entry_0, play_entry_1, play_entry_2, play_entry_3};
    uint64_t base = ~0ull;
    for (uint32_t i = 0; i < PLAY_ENTRIES; i++)
        base = (uintptr_t)entries[i] < base ? (uintptr_t)entries[i] : base;
    for (uint32_t i = 0; i < PLAY_ENTRIES; i++)
        play_exports[i] = (uint32_t)((uintptr_t)entries[i] - base);
    return base;
}

void play_exit(enum cafe_exit reason, uint64_t argument) {
    play_vmm(reason, argument);
}

uint64_t play_cycles(void) {
    const uint64_t now = __atomic_add_fetch(&play_now, PLAY_LOOK, __ATOMIC_SEQ_CST);
    if (play_clock)
        play_clock(now);
    return now;
}

void play_between(void) {
    if (play_claim)
        play_claim();
}

static bool exhausted(void) {
    if (play_fail_memory == 0)
        return false;
    play_fail_memory--;
    return true;
}

void *play_calloc(size_t count, size_t bytes) {
    return exhausted() ? NULL : calloc(count, bytes);
}

void *play_aligned_alloc(size_t align, size_t bytes) {
    return exhausted() ? NULL : aligned_alloc(align, (bytes + align - 1) & ~(align - 1));
}

void play_start(uint32_t vcpus) {
    const size_t bytes = (size_t)PLAY_REGIONS * PLAY_STRIDE;
    if (play_regions)
        (void)munmap(play_regions, bytes);
    play_regions = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(play_regions != MAP_FAILED);
    memset(&play_monitor, 0, sizeof play_monitor);
    play_boot = (struct cafe_boot){.slot_count = PLAY_SLOTS,
                                   .slot_bytes = PLAY_SLOT_BYTES,
                                   .bulk_bytes = PLAY_BULK,
                                   .base = fill_exports(),
                                   .channel = (uintptr_t)play_regions,
                                   .channel_stride = PLAY_STRIDE,
                                   .region_count = PLAY_REGIONS,
                                   .vcpu_count = vcpus,
                                   .spin_cycles = PLAY_SPIN,
                                   .isa = CAFE_ISA_X86_64_V2};
    play_clock = NULL;
    play_claim = NULL;
    play_be(0);
    rt_serve_start(&play_boot);
    play_attach(0);
}

void play_be(uint32_t vcpu) {
    rt_cpu = (struct rt_cpu){.boot = &play_boot,
                             .monitor = &play_monitor,
                             .own = &play_monitor.vcpus[vcpu],
                             .arena = arena,
                             .error = &errno,
                             .number = vcpu,
                             .budget = PLAY_SPIN};
}

/* As the VMM does it. */
void play_attach(uint32_t region) {
    for (uint32_t i = 0; i < PLAY_SLOTS; i++)
        __atomic_store_n(&play_slot(region, i)->reply, play_slot(region, i)->request, __ATOMIC_SEQ_CST);
    (void)__atomic_add_fetch(&play_monitor.attached[region], 1, __ATOMIC_SEQ_CST);
}

void play_detach(uint32_t region) {
    void *at = play_regions + region * PLAY_STRIDE;
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    NEED(mmap(at, PLAY_STRIDE, PROT_READ | PROT_WRITE, flags, -1, 0) == at);
    (void)__atomic_add_fetch(&play_monitor.attached[region], 1, __ATOMIC_SEQ_CST);
}

void play_serve(void (*serve)(void)) {
    if (setjmp(leave) == 0)
        serve();
}

void play_leave(void) {
    longjmp(leave, 1);
}

struct cafe_slot *play_slot(uint32_t region, uint32_t slot) {
    return (struct cafe_slot *)(void *)(play_regions + region * PLAY_STRIDE + CAFE_CHANNEL_HEADER_BYTES +
                                        slot * PLAY_SLOT_BYTES);
}

void play_ask(struct cafe_slot *slot, uint32_t entry) {
    slot->entry = entry;
    __atomic_store_n(&slot->request, slot->reply + 1, __ATOMIC_SEQ_CST);
}

bool play_answered(const struct cafe_slot *slot) {
    return __atomic_load_n(&slot->reply, __ATOMIC_SEQ_CST) == slot->request;
}
