/* Start of an enclave, and the loop that serves its calls. */
#include "rt.h"

#include <locale.h>
#include <string.h>

#define CANARY_OFFSET 0x28u
#define POLLS_PER_CLOCK 16u
#define EAGER_POLLS 64u

/* Filled in by `cafe build`; volatile, because the compiler only sees zeros. */
__attribute__((section(".cafe.layout"), used)) static const volatile struct rt_layout layout = {0};

#pragma GCC visibility push(hidden)
extern const uint32_t __cafe_exports[], __cafe_exports_end[]; /* image offsets */
extern void (*const __init_array_start[])(void);
extern void (*const __init_array_end[])(void);
_Noreturn void rt_entry(const struct cafe_boot *boot);
#pragma GCC visibility pop

struct server {
    const struct cafe_boot *boot;
    struct cafe_monitor *monitor;
    uint64_t exports;
    uint64_t calls;                  /* begun */
    uint64_t used;                   /* bytes of the arena to wipe */
    uint32_t served[CAFE_MAX_SLOTS]; /* the last request of each slot that was answered */
};

static void *at(uint64_t address) {
    return (void *)(uintptr_t)address;
}

/* The canary changes here, so this function cannot have one itself. */
__attribute__((no_stack_protector)) static void start_thread(const struct cafe_boot *boot) {
    uint64_t secret[2], random = 0;
    memcpy(secret, boot->seed, sizeof secret);
    (void)rt_random(&random);
    uint64_t align = layout.tls_align, bytes = (layout.tls_bytes + align - 1) & ~(align - 1);
    memcpy(at(boot->thread - bytes), at(boot->base + layout.tls_offset), layout.tls_file_bytes);
    *(uint64_t *)at(boot->thread) = boot->thread;
    *(uint64_t *)at(boot->thread + CANARY_OFFSET) = (secret[0] ^ random) & ~(uint64_t)0xff;
    rt_heap_start(boot->heap, boot->heap_bytes, secret[1]);
}

/* Function pointers whose value is chosen by the CPU's features (gcc's target_clones). */
static void resolve_ifuncs(uint64_t base) {
    const uint32_t *pair = at(base + layout.ifunc_offset);
    for (uint32_t i = 0; i < layout.ifunc_count; i++, pair += 2) {
        uint64_t (*resolver)(void) = (uint64_t (*)(void))at(base + pair[1]);
        *(uint64_t *)at(base + pair[0]) = resolver();
    }
}

static struct cafe_slot *slot_at(const struct cafe_boot *boot, uint32_t i) {
    return at(boot->channel + CAFE_CHANNEL_HEADER_BYTES + i * boot->slot_bytes);
}

/* `index` if it is below `count`, else 0, even where the CPU speculates past the check before. */
static uint64_t clamp(uint64_t index, uint64_t count) {
    uint64_t mask;
    __asm__("cmpq %2, %1\n\tsbbq %0, %0" : "=r"(mask) : "r"(index), "r"(count) : "cc");
    return index & mask;
}

static enum cafe_status run(struct server *server, struct cafe_slot *slot) {
    const struct cafe_boot *boot = server->boot;
    uint64_t entry = *(volatile uint32_t *)&slot->entry;
    if (entry >= server->exports)
        return CAFE_E_ENTRY;
    rt_entry_function *function =
        (rt_entry_function *)at(boot->base + __cafe_exports[clamp(entry, server->exports)]);
    struct rt_call call = {.slot = (const volatile uint8_t *)slot,
                           .arena = at(boot->arena),
                           .slot_bytes = boot->slot_bytes,
                           .shared = slot};
    enum cafe_status status = rt_enter(function, &call);
    server->used = call.used < call.slot_bytes ? call.used : call.slot_bytes;
    return status;
}

/* What the call left behind in registers and arena goes while its caller already reads the answer. */
static void forget(struct server *server) {
    rt_fresh(server->boot->isa >= CAFE_ISA_X86_64_V3);
    void *arena = at(server->boot->arena);
    memset(arena, 0, server->used);
    __asm__ volatile("" : : "r"(arena) : "memory"); /* the wipe is not dead code */
    server->used = 0;
}

/* Answer the slot's request if it has a new one. A request that is not the next number is no call. */
static bool serve(struct server *server, uint32_t i) {
    struct cafe_slot *slot = slot_at(server->boot, i);
    uint32_t request = __atomic_load_n(&slot->request, __ATOMIC_ACQUIRE);
    if (request == server->served[i])
        return false;
    bool next = request == server->served[i] + 1;
    server->served[i] = request;
    server->monitor->slot = i;
    __atomic_store_n(&server->monitor->started, ++server->calls, __ATOMIC_RELEASE);
    enum cafe_status status = next ? run(server, slot) : CAFE_E_MALFORMED;
    if (status != CAFE_OK)
        memset(slot->result, 0, sizeof slot->result);
    slot->status = (uint32_t)status;
    __atomic_store_n(&slot->reply, request,
                     __ATOMIC_SEQ_CST); /* the guest sets `waiting`, then looks again */
    forget(server);
    __atomic_store_n(&server->monitor->finished, server->calls, __ATOMIC_RELEASE);
    if (__atomic_load_n(&slot->waiting, __ATOMIC_RELAXED))
        rt_exit(CAFE_EXIT_WAKE, i);
    return true;
}

/* A caller that calls again at once finds the enclave polling at full speed; `pause` comes a moment later. */
_Noreturn static void dispatch(struct server *server) {
    const struct cafe_boot *boot = server->boot;
    uint64_t last = __builtin_ia32_rdtsc();
    for (uint32_t polls = 1;; polls++) {
        bool served = false;
        for (uint32_t i = 0; i < boot->slot_count; i++)
            served |= serve(server, i);
        if (served) {
            last = __builtin_ia32_rdtsc();
            polls = 0;
        } else if (polls % POLLS_PER_CLOCK == 0 && __builtin_ia32_rdtsc() - last >= boot->spin_cycles) {
            rt_exit(CAFE_EXIT_IDLE, 0);
            last = __builtin_ia32_rdtsc();
        }
        if (polls > EAGER_POLLS)
            __builtin_ia32_pause();
    }
}

_Noreturn void rt_entry(const struct cafe_boot *boot) {
    static struct server server;
    if (boot->magic != CAFE_BOOT_MAGIC || boot->abi_version != CAFE_ABI_VERSION ||
        boot->slot_count > CAFE_MAX_SLOTS)
        rt_abort(CAFE_E_VERSION);
    start_thread(boot);
    uselocale(LC_GLOBAL_LOCALE); /* libc reads the locale through the thread block */
    resolve_ifuncs(boot->base);
    for (void (*const *constructor)(void) = __init_array_start; constructor < __init_array_end; constructor++)
        (*constructor)();
    server.boot = boot;
    server.monitor = at(boot->monitor);
    server.exports = (uint64_t)(__cafe_exports_end - __cafe_exports);
    rt_fresh(boot->isa >= CAFE_ISA_X86_64_V3);
    rt_exit(CAFE_EXIT_READY, 0);
    dispatch(&server);
}
