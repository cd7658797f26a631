/* vmm_config.c - each bound of a configuration, just inside and just outside. */
#include "need.h"
#include "vmm.h"

#include <string.h>

#define PAGE 4096ull
#define GIB (1ull << 30)
#define LINEAR_END (1ull << 47)
#define ALL_SLOTS (CAFE_CHANNEL_HEADER_BYTES + 2 * 65536ull)

static const struct vmm_config good = {.magic = VMM_CONFIG_MAGIC,
                                       .abi_version = CAFE_ABI_VERSION,
                                       .isa = CAFE_ISA_X86_64_V2,
                                       .memory_bytes = 1 << 20,
                                       .channel_gpa = GIB,
                                       .channel_stride = GIB,
                                       .region_bytes = ALL_SLOTS,
                                       .slot_bytes = 65536,
                                       .region_count = 8,
                                       .slot_count = 2,
                                       .vcpu_count = 1,
                                       .gdt_limit = 0x4f,
                                       .idt_limit = 511,
                                       .tss_limit = 0x70,
                                       .monitor_gpa = 4096,
                                       .cr3 = 8192,
                                       .rip = GIB,
                                       .rdi = GIB,
                                       .fault_handler = GIB,
                                       .deadline_ns = 1000000000,
                                       .vcpus = {{.rsp = GIB,
                                                  .fs_base = GIB,
                                                  .gdt_base = GIB,
                                                  .idt_base = GIB,
                                                  .tss_base = GIB,
                                                  .fault_stack = GIB,
                                                  .fault_stack_gpa = 4096}}};

#define TRY(field, value, problem)                                                                           \
    do {                                                                                                     \
        struct vmm_config config = good;                                                                     \
        config.field = (__typeof__(config.field))(value);                                                    \
        const char *found = vmm_config_problem(&config);                                                     \
        NEED(strcmp(found ? found : GOOD, (problem)) == 0);                                                  \
    } while (0)
#define GOOD ""

static void head(void) {
    TRY(magic, 0, "magic");
    TRY(abi_version, 1, "abi_version");
    TRY(isa, CAFE_ISA_X86_64 - 1, "isa");
    TRY(isa, CAFE_ISA_X86_64_V3 + 1, "isa");
    TRY(isa, CAFE_ISA_X86_64_V3, GOOD);
}

static void sizes(void) {
    TRY(memory_bytes, 0, "memory_bytes");
    TRY(memory_bytes, (1ull << 36) + PAGE, "memory_bytes");
    TRY(memory_bytes, (1 << 20) + 1, "memory_bytes");
    TRY(slot_count, 0, "slot_count");
    TRY(slot_count, CAFE_MAX_SLOTS + 1, "slot_count");
    TRY(slot_bytes, 0, "slot_bytes");
    TRY(slot_bytes, CAFE_MAX_SLOT_BYTES + PAGE, "slot_bytes");
    TRY(slot_bytes, 65537, "slot_bytes");
    TRY(region_count, 0, "region_count");
    TRY(region_count, CAFE_MAX_REGIONS + 1, "region_count");
    TRY(vcpu_count, 0, "vcpu_count");
    TRY(vcpu_count, CAFE_MAX_VCPUS + 1, "vcpu_count");
    TRY(deadline_ns, 999999, "deadline_ns");
    TRY(deadline_ns, 24ull * 3600 * 1000000000 + 1, "deadline_ns");
    TRY(deadline_ns, 24ull * 3600 * 1000000000, GOOD);
}

static void physical(void) {
    TRY(region_bytes, ALL_SLOTS - PAGE, "region_bytes");
    TRY(region_bytes, ALL_SLOTS + CAFE_BULK_ALIGN + CAFE_MAX_BULK_BYTES + PAGE, "region_bytes");
    TRY(region_bytes, ALL_SLOTS + 1, "region_bytes");
    TRY(channel_stride, ALL_SLOTS - PAGE, "channel_stride");
    TRY(channel_stride, (1ull << 34) + PAGE, "channel_stride");
    TRY(channel_stride, GIB + 1, "channel_stride");
    TRY(channel_gpa, 0, "channel_gpa");
    TRY(channel_gpa, GIB + 1, "channel_gpa");
    TRY(channel_gpa, (1ull << 38) - PAGE, "channel_gpa");
    TRY(channel_gpa, ~0ull - PAGE + 1, "channel_gpa");
    TRY(channel_stride, 1ull << 34, GOOD);
    TRY(monitor_gpa, 4097, "monitor_gpa");
    TRY(monitor_gpa, (1 << 20) - 64, "monitor_gpa");
    TRY(monitor_gpa, ~0ull - 63, "monitor_gpa");
    TRY(memory_bytes, PAGE, "monitor_gpa");
    TRY(cr3, 8193, "cr3");
    TRY(cr3, 1 << 20, "cr3");
}

/* A part that is larger than all memory. */
static void small_memory(void) {
    struct vmm_config config = good;
    config.memory_bytes = PAGE;
    config.monitor_gpa = 0;
    config.cr3 = 0;
    NEED(!vmm_config_problem(&config));
}

static void entry(void) {
    TRY(rip, 4096, "rip");
    TRY(rip, LINEAR_END, "rip");
    TRY(rip, LINEAR_END - 1, GOOD);
    TRY(rdi, 0, "rdi");
    TRY(rdi, LINEAR_END - 8, "rdi");
    TRY(gdt_limit, PAGE, "gdt_limit");
    TRY(idt_limit, 512, "idt_limit");
    TRY(tss_limit, 103, "tss_limit");
    TRY(tss_limit, PAGE, "tss_limit");
    TRY(fault_handler, 16, "fault_handler");
    TRY(fault_handler, GIB + 1, "fault_handler");
}

static void vcpus(void) {
    TRY(vcpus[0].rsp, 8, "rsp");
    TRY(vcpus[0].rsp, GIB + 4, "rsp");
    TRY(vcpus[0].fs_base, 0, "fs_base");
    TRY(vcpus[0].gdt_base, 0, "gdt_base");
    TRY(vcpus[0].idt_base, LINEAR_END - 16, "idt_base");
    TRY(vcpus[0].tss_base, ~0ull, "tss_base");
    TRY(vcpus[0].fault_stack, 0, "fault_stack");
    TRY(vcpus[0].fault_stack, GIB + 8, "fault_stack");
    TRY(vcpus[0].fault_stack_gpa, 48, "fault_stack_gpa");
    TRY(vcpus[0].fault_stack_gpa, (1 << 20) + 16, "fault_stack_gpa");
    TRY(vcpus[0].fault_stack_gpa, 4104, "fault_stack_gpa");
    TRY(vcpus[0].fault_stack_gpa, 1 << 20, GOOD);
    TRY(vcpu_count, 2, "rsp"); /* the second is all zeros */
    struct vmm_config config = good;
    config.vcpu_count = 2;
    config.vcpus[1] = config.vcpus[0];
    NEED(!vmm_config_problem(&config));
}

int main(void) {
    NEED(!vmm_config_problem(&good));
    head();
    sizes();
    physical();
    small_memory();
    entry();
    vcpus();
    (void)puts("all good");
    return 0;
}
