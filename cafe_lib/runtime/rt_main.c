/* Start of an enclave: every vCPU's thread, then, on the first, the secret code's constructors. */
#include "rt.h"

#include <errno.h>
#include <locale.h>
#include <string.h>

#define CANARY_OFFSET 0x28u

/* Filled in by `cafe build`; volatile, because the compiler only sees zeros. */
__attribute__((section(".cafe.layout"), used)) static const volatile struct rt_layout layout = {0};

#pragma GCC visibility push(hidden)
extern void (*const __init_array_start[])(void);
extern void (*const __init_array_end[])(void);
_Noreturn void rt_entry(const struct cafe_boot *boot, uint64_t number);
#pragma GCC visibility pop

static void *at(uint64_t address) {
    return (void *)(uintptr_t)address;
}

/* The canary changes here, so this function cannot have one itself. */
__attribute__((no_stack_protector)) static void start_thread(const struct cafe_boot *boot, uint64_t number) {
    uint64_t secret, random = 0, align = layout.tls_align, thread = boot->vcpus[number].thread;
    memcpy(&secret, boot->seed, sizeof secret);
    (void)rt_random(&random);
    memcpy(at(thread - ((layout.tls_bytes + align - 1) & ~(align - 1))), at(boot->base + layout.tls_offset),
           layout.tls_file_bytes);
    *(uint64_t *)at(thread) = thread;
    *(uint64_t *)at(thread + CANARY_OFFSET) = (secret ^ random) & ~(uint64_t)0xff;
}

/* Function pointers whose value is chosen by the CPU's features (gcc's target_clones). */
static void resolve_ifuncs(uint64_t base) {
    const uint32_t *pair = at(base + layout.ifunc_offset);
    for (uint32_t i = 0; i < layout.ifunc_count; i++, pair += 2) {
        uint64_t (*resolver)(void) = (uint64_t (*)(void))at(base + pair[1]);
        *(uint64_t *)at(base + pair[0]) = resolver();
    }
}

static void start_process(const struct cafe_boot *boot) {
    uint64_t secret;
    memcpy(&secret, boot->seed + sizeof secret, sizeof secret);
    rt_heap_start(boot->heap, boot->heap_bytes, secret);
    resolve_ifuncs(boot->base);
    for (void (*const *constructor)(void) = __init_array_start; constructor < __init_array_end; constructor++)
        (*constructor)();
    rt_serve_start(boot);
    rt_fresh(boot->isa >= CAFE_ISA_X86_64_V3);
    rt_exit(CAFE_EXIT_READY, 0);
}

_Noreturn void rt_entry(const struct cafe_boot *boot, uint64_t number) {
    if (boot->magic != CAFE_BOOT_MAGIC || boot->abi_version != CAFE_ABI_VERSION ||
        boot->slot_count > CAFE_MAX_SLOTS || boot->region_count > CAFE_MAX_REGIONS ||
        number >= CAFE_MAX_VCPUS)
        rt_abort(CAFE_E_VERSION);
    start_thread(boot, number);
    uselocale(LC_GLOBAL_LOCALE); /* libc reads the locale through the thread block */
    struct cafe_monitor *monitor = at(boot->monitor);
    rt_cpu = (struct rt_cpu){.boot = boot,
                             .monitor = monitor,
                             .own = &monitor->vcpus[number],
                             .arena = at(boot->vcpus[number].arena),
                             .error = &errno,
                             .number = (uint32_t)number,
                             .budget = boot->spin_cycles};
    if (number == 0)
        start_process(boot);
    rt_serve();
}
