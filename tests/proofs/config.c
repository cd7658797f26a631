/* config.c - what the VMM accepts as a configuration: every range lies inside what it must, and nothing
 * wraps. */
#include "proof.h"

#ifdef __FRAMAC__
/* For WP: what these three say, proven of them and used where they are called. */
/*@ assigns \nothing; ensures \result != 0 <==> bytes <= end && start + bytes <= end; */
static bool within(uint64_t start, uint64_t bytes, uint64_t end);
/*@ requires unit > 0; assigns \nothing; ensures \result != 0 <==> value % unit == 0; */
static bool aligned(uint64_t value, uint64_t unit);
/*@ assigns \nothing;
    ensures \result != 0 <==> start >= 0x100000 && bytes <= 0x800000000000 &&
                              start + bytes <= 0x800000000000; */
static bool linear(uint64_t start, uint64_t bytes);
#endif
/* frama-c: inline sizes_problem,physical_problem,entry_problem,vcpu_problem,sized
 * frama-c: prove within,aligned,linear */

#include "../../hypervisor_agent/vmm/config.c"

#define GIB (1ull << 30)

/* What an agent may send. */
__attribute__((unused)) static void make_config(struct vmm_config *c) {
    *c = (struct vmm_config){.magic = VMM_CONFIG_MAGIC,
                             .abi_version = CAFE_ABI_VERSION,
                             .isa = CAFE_ISA_X86_64_V2,
                             .memory_bytes = 64ull << 20,
                             .channel_gpa = 1ull << 32,
                             .channel_stride = 64ull << 20,
                             .region_bytes = (2ull << 20) + (16ull << 20),
                             .slot_bytes = 65536,
                             .region_count = 4,
                             .slot_count = 4,
                             .vcpu_count = 2,
                             .gdt_limit = 55,
                             .idt_limit = GATES * 16 - 1,
                             .tss_limit = TSS_BYTES,
                             .monitor_gpa = 0x10000,
                             .cr3 = 0x1000,
                             .rip = GIB,
                             .rdi = 2 * GIB,
                             .fault_handler = 3 * GIB,
                             .deadline_ns = 1000000000};
    for (uint32_t i = 0; i < CAFE_MAX_VCPUS; i++) {
        c->vcpus[i] = (struct vmm_vcpu){5 * GIB, 6 * GIB, 7 * GIB, 8 * GIB, 9 * GIB, 10 * GIB, 0x20000};
    }
}

void prove_config_sizes(void) {
    struct vmm_config c;
    proof_any_struct(&c, make_config);
    PROOF_ASSUME(sizes_problem(&c) == NULL);
    PROOF_HOLDS(c.memory_bytes >= CAFE_PAGE && c.memory_bytes <= MAX_MEMORY_BYTES);
    PROOF_HOLDS(c.memory_bytes % CAFE_PAGE == 0 && c.slot_bytes % CAFE_PAGE == 0);
    PROOF_HOLDS(c.slot_count >= 1 && c.slot_count <= CAFE_MAX_SLOTS);
    PROOF_HOLDS(c.slot_count * c.slot_bytes <= (uint64_t)CAFE_MAX_SLOTS * CAFE_MAX_SLOT_BYTES);
    PROOF_HOLDS(c.region_count >= 1 && c.region_count <= CAFE_MAX_REGIONS);
    PROOF_HOLDS(c.vcpu_count >= 1 && c.vcpu_count <= CAFE_MAX_VCPUS);
    PROOF_HOLDS(c.deadline_ns > 0);
}

/* What the harness above proves of sizes, as an assumption of those below: it is a simpler one. */
static bool sized(const struct vmm_config *c) {
    return c->memory_bytes >= CAFE_PAGE && c->memory_bytes <= MAX_MEMORY_BYTES && c->slot_count >= 1 &&
           c->slot_count <= CAFE_MAX_SLOTS && c->slot_bytes <= CAFE_MAX_SLOT_BYTES && c->region_count >= 1 &&
           c->region_count <= CAFE_MAX_REGIONS;
}

/* Memory, then every region of every guest: one after the other, none over another, none beyond the end. */
void prove_config_physical(void) {
    struct vmm_config c;
    proof_any_struct(&c, make_config);
    PROOF_ASSUME(sized(&c));
    PROOF_ASSUME(physical_problem(&c) == NULL);
    PROOF_HOLDS(c.channel_gpa >= c.memory_bytes);
    PROOF_HOLDS(c.channel_gpa <= PHYSICAL_END);
    PROOF_HOLDS(c.region_count * c.channel_stride <= PHYSICAL_END - c.channel_gpa);
    PROOF_HOLDS(c.region_bytes <= c.channel_stride);
    PROOF_HOLDS(c.region_bytes >= CAFE_CHANNEL_HEADER_BYTES + c.slot_count * c.slot_bytes);
    PROOF_HOLDS(c.monitor_gpa <= c.memory_bytes - sizeof(struct cafe_monitor));
    PROOF_HOLDS(c.cr3 <= c.memory_bytes - CAFE_PAGE);
    PROOF_HOLDS(c.cr3 % CAFE_PAGE == 0);
}

/* From these it follows that a slot that there is lies in its region, and a region in its window. */
void prove_config_slots(void) {
    const uint64_t slot_count = proof_any(), slot_bytes = proof_any(), slot = proof_any();
    const uint64_t region_bytes = proof_any();
    PROOF_ASSUME(slot_count <= CAFE_MAX_SLOTS && slot_bytes <= CAFE_MAX_SLOT_BYTES);
    PROOF_ASSUME(region_bytes >= CAFE_CHANNEL_HEADER_BYTES + slot_count * slot_bytes);
    PROOF_ASSUME(slot < slot_count);
    const uint64_t at = CAFE_CHANNEL_HEADER_BYTES + slot * slot_bytes;
    PROOF_HOLDS(at + slot_bytes <= region_bytes);
}

void prove_config_entry(void) {
    struct vmm_config c;
    proof_any_struct(&c, make_config);
    PROOF_ASSUME(entry_problem(&c) == NULL);
    PROOF_HOLDS(c.rip >= LOWEST_LINEAR && c.rip < LINEAR_END);
    PROOF_HOLDS(c.rdi >= LOWEST_LINEAR && c.rdi <= LINEAR_END - sizeof(struct cafe_boot));
    PROOF_HOLDS(c.fault_handler >= LOWEST_LINEAR && c.fault_handler + GATES * 16 <= LINEAR_END);
    PROOF_HOLDS(c.gdt_limit < CAFE_PAGE && c.tss_limit < CAFE_PAGE && c.idt_limit == 511);
}

void prove_config_vcpu(void) {
    struct vmm_config c;
    struct vmm_vcpu v;
    proof_any_struct(&c, make_config);
    v = c.vcpus[0];
    PROOF_ASSUME(sized(&c));
    PROOF_ASSUME(c.gdt_limit < CAFE_PAGE && c.tss_limit < CAFE_PAGE && c.idt_limit == GATES * 16 - 1);
    PROOF_ASSUME(vcpu_problem(&c, &v) == NULL);
    PROOF_HOLDS(v.rsp >= LOWEST_LINEAR && v.rsp <= LINEAR_END - 8 && v.rsp % 8 == 0);
    PROOF_HOLDS(v.fs_base >= LOWEST_LINEAR && v.fs_base <= LINEAR_END - 8);
    PROOF_HOLDS(v.gdt_base >= LOWEST_LINEAR && v.gdt_base + c.gdt_limit < LINEAR_END);
    PROOF_HOLDS(v.idt_base >= LOWEST_LINEAR && v.idt_base + c.idt_limit < LINEAR_END);
    PROOF_HOLDS(v.tss_base >= LOWEST_LINEAR && v.tss_base + c.tss_limit < LINEAR_END);
    PROOF_HOLDS(v.fault_stack >= LOWEST_LINEAR && v.fault_stack < LINEAR_END);
    PROOF_HOLDS(v.fault_stack_gpa >= FAULT_FRAME_BYTES && v.fault_stack_gpa <= c.memory_bytes);
}

#ifndef __FRAMAC__ /* WP does not follow the table of function pointers: it proves the checks one by one */
void prove_config_whole(void) {
    struct vmm_config c;
    proof_any_struct(&c, make_config);
    PROOF_ASSUME(vmm_config_problem(&c) == NULL);
    PROOF_HOLDS(c.magic == VMM_CONFIG_MAGIC && c.abi_version == CAFE_ABI_VERSION);
    PROOF_HOLDS(sizes_problem(&c) == NULL && physical_problem(&c) == NULL && entry_problem(&c) == NULL);
    for (uint32_t i = 0; i < c.vcpu_count; i++) {
        PROOF_HOLDS(vcpu_problem(&c, &c.vcpus[i]) == NULL);
    }
}
#endif

PROOF_HARNESSES({"prove_config_sizes", prove_config_sizes}, {"prove_config_physical", prove_config_physical},
                {"prove_config_slots", prove_config_slots}, {"prove_config_entry", prove_config_entry},
                {"prove_config_vcpu", prove_config_vcpu}, {"prove_config_whole", prove_config_whole});
