/* config.c - any bytes as a VMM configuration: what is accepted keeps every range inside what it must. */
#include "fuzz.h"
#include "vmm.h"

static void need_sound(const struct vmm_config *c) {
    const uint64_t top = 1ull << 47, end = 1ull << 38;
    FUZZ_NEED(c->slot_count >= 1 && c->slot_count <= CAFE_MAX_SLOTS);
    FUZZ_NEED(c->slot_bytes >= CAFE_MIN_SLOT_BYTES && c->slot_bytes <= CAFE_MAX_SLOT_BYTES);
    FUZZ_NEED(c->region_count >= 1 && c->region_count <= CAFE_MAX_REGIONS);
    FUZZ_NEED(c->vcpu_count >= 1 && c->vcpu_count <= CAFE_MAX_VCPUS);
    FUZZ_NEED(c->region_bytes >= CAFE_CHANNEL_HEADER_BYTES + c->slot_count * c->slot_bytes);
    FUZZ_NEED(c->region_bytes <= c->channel_stride && c->channel_stride <= end);
    FUZZ_NEED(c->channel_gpa >= c->memory_bytes && c->channel_gpa <= end);
    FUZZ_NEED(c->region_count * c->channel_stride <= end - c->channel_gpa);
    FUZZ_NEED(c->memory_bytes >= CAFE_PAGE && c->cr3 <= c->memory_bytes - CAFE_PAGE);
    FUZZ_NEED(c->monitor_gpa <= c->memory_bytes - sizeof(struct cafe_monitor));
    FUZZ_NEED(c->rip < top && c->rdi < top && c->fault_handler < top);
    for (uint32_t i = 0; i < c->vcpu_count; i++) {
        const struct vmm_vcpu *v = &c->vcpus[i];
        FUZZ_NEED(v->rsp < top && v->fs_base < top && v->gdt_base < top && v->idt_base < top);
        FUZZ_NEED(v->tss_base < top && v->fault_stack < top);
        FUZZ_NEED(v->fault_stack_gpa >= 64 && v->fault_stack_gpa <= c->memory_bytes);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input input = {data, size};
    struct vmm_config config;
    fuzz_take(&input, &config, sizeof config);
    const char *problem = vmm_config_problem(&config);
    FUZZ_NEED(problem == NULL || problem[0] != 0);
    if (problem == NULL) {
        need_sound(&config);
    }
    return 0;
}
