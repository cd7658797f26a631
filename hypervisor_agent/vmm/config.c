/* config.c - is this configuration sound? Pure, so that it can be tested and fuzzed away from KVM. */
#include "vmm.h"

#define LOWEST_LINEAR (1ull << 20) /* nothing is mapped below: null pointers and `syscall` targets fault */
#define LINEAR_END (1ull << 47)    /* the lower canonical half */
#define MAX_MEMORY_BYTES (1ull << 36)
#define PHYSICAL_END (1ull << 38)
#define MIN_DEADLINE_NS 1000000ull
#define MAX_DEADLINE_NS (24ull * 3600 * 1000000000)
#define GATES 32u
#define TSS_BYTES 104u
#define FAULT_FRAME_BYTES 64u

static bool within(uint64_t start, uint64_t bytes, uint64_t end) {
    return bytes <= end && start <= end - bytes;
}

static bool aligned(uint64_t value, uint64_t unit) {
    return value % unit == 0;
}

static bool linear(uint64_t start, uint64_t bytes) {
    return start >= LOWEST_LINEAR && within(start, bytes, LINEAR_END);
}

static const char *sizes_problem(const struct vmm_config *c) {
    if (c->memory_bytes == 0 || c->memory_bytes > MAX_MEMORY_BYTES || !aligned(c->memory_bytes, CAFE_PAGE))
        return "memory_bytes";
    if (c->slot_count == 0 || c->slot_count > CAFE_MAX_SLOTS)
        return "slot_count";
    if (c->slot_bytes < CAFE_MIN_SLOT_BYTES || c->slot_bytes > CAFE_MAX_SLOT_BYTES ||
        !aligned(c->slot_bytes, CAFE_PAGE))
        return "slot_bytes";
    if (c->channel_bytes != CAFE_CHANNEL_HEADER_BYTES + c->slot_count * c->slot_bytes)
        return "channel_bytes";
    if (c->deadline_ns < MIN_DEADLINE_NS || c->deadline_ns > MAX_DEADLINE_NS)
        return "deadline_ns";
    return NULL;
}

static const char *physical_problem(const struct vmm_config *c) {
    if (c->channel_gpa < c->memory_bytes || !aligned(c->channel_gpa, CAFE_PAGE) ||
        !within(c->channel_gpa, c->channel_bytes, PHYSICAL_END))
        return "channel_gpa";
    if (!aligned(c->monitor_gpa, sizeof(uint64_t)) ||
        !within(c->monitor_gpa, sizeof(struct cafe_monitor), c->memory_bytes))
        return "monitor_gpa";
    if (!aligned(c->cr3, CAFE_PAGE) || !within(c->cr3, CAFE_PAGE, c->memory_bytes))
        return "cr3";
    if (c->fault_stack_gpa < FAULT_FRAME_BYTES || c->fault_stack_gpa > c->memory_bytes ||
        !aligned(c->fault_stack_gpa, 16))
        return "fault_stack_gpa";
    return NULL;
}

static const char *entry_problem(const struct vmm_config *c) {
    if (!linear(c->rip, 1))
        return "rip";
    if (!linear(c->rsp, sizeof(uint64_t)) || !aligned(c->rsp, sizeof(uint64_t)))
        return "rsp";
    if (!linear(c->rdi, sizeof(struct cafe_boot)))
        return "rdi";
    if (!linear(c->fs_base, sizeof(uint64_t)))
        return "fs_base";
    return NULL;
}

static const char *tables_problem(const struct vmm_config *c) {
    if (c->gdt_limit >= CAFE_PAGE)
        return "gdt_limit";
    if (c->idt_limit != GATES * 16 - 1)
        return "idt_limit";
    if (c->tss_limit < TSS_BYTES || c->tss_limit >= CAFE_PAGE)
        return "tss_limit";
    if (!linear(c->gdt_base, c->gdt_limit + 1ull))
        return "gdt_base";
    if (!linear(c->idt_base, c->idt_limit + 1ull))
        return "idt_base";
    if (!linear(c->tss_base, c->tss_limit + 1ull))
        return "tss_base";
    if (!linear(c->fault_handler, GATES * 16) || !aligned(c->fault_handler, 16))
        return "fault_handler";
    if (!linear(c->fault_stack, 1) || !aligned(c->fault_stack, 16))
        return "fault_stack";
    return NULL;
}

const char *vmm_config_problem(const struct vmm_config *config) {
    static const char *(*const checks[])(const struct vmm_config *) = {sizes_problem, physical_problem,
                                                                       entry_problem, tables_problem};
    if (config->magic != VMM_CONFIG_MAGIC)
        return "magic";
    if (config->abi_version != CAFE_ABI_VERSION)
        return "abi_version";
    if (config->isa < CAFE_ISA_X86_64 || config->isa > CAFE_ISA_X86_64_V3)
        return "isa";
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
        const char *problem = checks[i](config);
        if (problem)
            return problem;
    }
    return NULL;
}
