/* config.c - is this configuration sound? Pure, so that it can be tested, fuzzed and proven away from KVM. */
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
    if (c->region_count == 0 || c->region_count > CAFE_MAX_REGIONS)
        return "region_count";
    if (c->vcpu_count == 0 || c->vcpu_count > CAFE_MAX_VCPUS)
        return "vcpu_count";
    if (c->deadline_ns < MIN_DEADLINE_NS || c->deadline_ns > MAX_DEADLINE_NS)
        return "deadline_ns";
    return NULL;
}

static const char *physical_problem(const struct vmm_config *c) {
    const uint64_t slots_end = CAFE_CHANNEL_HEADER_BYTES + c->slot_count * c->slot_bytes;
    if (c->region_bytes < slots_end ||
        c->region_bytes > slots_end + CAFE_BULK_ALIGN + (uint64_t)CAFE_MAX_BULK_BYTES ||
        !aligned(c->region_bytes, CAFE_PAGE))
        return "region_bytes";
    if (c->channel_stride < c->region_bytes || c->channel_stride > PHYSICAL_END / CAFE_MAX_REGIONS ||
        !aligned(c->channel_stride, CAFE_PAGE))
        return "channel_stride";
    if (c->channel_gpa < c->memory_bytes || !aligned(c->channel_gpa, CAFE_PAGE) ||
        !within(c->channel_gpa, c->region_count * c->channel_stride, PHYSICAL_END))
        return "channel_gpa";
    if (!aligned(c->monitor_gpa, CAFE_CACHE_LINE) ||
        !within(c->monitor_gpa, sizeof(struct cafe_monitor), c->memory_bytes))
        return "monitor_gpa";
    if (!aligned(c->cr3, CAFE_PAGE) || !within(c->cr3, CAFE_PAGE, c->memory_bytes))
        return "cr3";
    return NULL;
}

static const char *entry_problem(const struct vmm_config *c) {
    if (!linear(c->rip, 1))
        return "rip";
    if (!linear(c->rdi, sizeof(struct cafe_boot)))
        return "rdi";
    if (c->gdt_limit >= CAFE_PAGE)
        return "gdt_limit";
    if (c->idt_limit != GATES * 16 - 1)
        return "idt_limit";
    if (c->tss_limit < TSS_BYTES || c->tss_limit >= CAFE_PAGE)
        return "tss_limit";
    if (!linear(c->fault_handler, GATES * 16) || !aligned(c->fault_handler, 16))
        return "fault_handler";
    return NULL;
}

static const char *vcpu_problem(const struct vmm_config *c, const struct vmm_vcpu *v) {
    if (!linear(v->rsp, sizeof(uint64_t)) || !aligned(v->rsp, sizeof(uint64_t)))
        return "rsp";
    if (!linear(v->fs_base, sizeof(uint64_t)))
        return "fs_base";
    if (!linear(v->gdt_base, c->gdt_limit + 1ull))
        return "gdt_base";
    if (!linear(v->idt_base, c->idt_limit + 1ull))
        return "idt_base";
    if (!linear(v->tss_base, c->tss_limit + 1ull))
        return "tss_base";
    if (!linear(v->fault_stack, 1) || !aligned(v->fault_stack, 16))
        return "fault_stack";
    if (v->fault_stack_gpa < FAULT_FRAME_BYTES || v->fault_stack_gpa > c->memory_bytes ||
        !aligned(v->fault_stack_gpa, 16))
        return "fault_stack_gpa";
    return NULL;
}

static const char *vcpus_problem(const struct vmm_config *c) {
    for (uint32_t i = 0; i < c->vcpu_count; i++) {
        const char *problem = vcpu_problem(c, &c->vcpus[i]);
        if (problem)
            return problem;
    }
    return NULL;
}

const char *vmm_config_problem(const struct vmm_config *config) {
    static const char *(*const checks[])(const struct vmm_config *) = {sizes_problem, physical_problem,
                                                                       entry_problem, vcpus_problem};
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
