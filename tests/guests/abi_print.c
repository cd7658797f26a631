/* abi_print.c - prints what Python must know of cafe_abi.h, as a Python literal. */
#include "cafe_abi.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

#define SIZE(type) printf("'sizeof %s': %zu,\n", #type, sizeof(struct type))
#define OFFSET(type, field) printf("'%s.%s': %zu,\n", #type, #field, offsetof(struct type, field))
#define VALUE(name) printf("'%s': %" PRIu64 ",\n", #name, (uint64_t)(name))

int main(void) {
    printf("{\n");
    SIZE(vmm_config);
    SIZE(vmm_vcpu);
    SIZE(vmm_event);
    SIZE(vmm_command);
    SIZE(cafe_boot);
    SIZE(cafe_boot_vcpu);
    SIZE(cafe_monitor);
    SIZE(cafe_monitor_vcpu);
    OFFSET(cafe_channel_header, slot_bytes);
    OFFSET(cafe_channel_header, bulk_bytes);
    OFFSET(cafe_channel_header, region_bytes);
    OFFSET(cafe_channel_header, state);
    OFFSET(cafe_channel_header, status);
    OFFSET(cafe_channel_header, sleeping);
    OFFSET(cafe_channel_header, bell);
    OFFSET(cafe_slot, reply);
    OFFSET(cafe_slot, status);
    OFFSET(cafe_slot, result);
    OFFSET(cafe_slot, request);
    OFFSET(cafe_slot, entry);
    OFFSET(cafe_slot, waiting);
    OFFSET(cafe_slot, returned);
    OFFSET(cafe_slot, frame);
    OFFSET(cafe_boot, slot_bytes);
    OFFSET(cafe_boot, bulk_bytes);
    OFFSET(cafe_boot, base);
    OFFSET(cafe_boot, heap);
    OFFSET(cafe_boot, heap_bytes);
    OFFSET(cafe_boot, channel);
    OFFSET(cafe_boot, channel_stride);
    OFFSET(cafe_boot, region_count);
    OFFSET(cafe_boot, vcpu_count);
    OFFSET(cafe_boot, monitor);
    OFFSET(cafe_boot, spin_cycles);
    OFFSET(cafe_boot, isa);
    OFFSET(cafe_boot, seed);
    OFFSET(cafe_boot, vcpus);
    OFFSET(cafe_monitor, attached);
    OFFSET(cafe_monitor, settled);
    OFFSET(cafe_monitor_vcpu, started);
    OFFSET(cafe_monitor_vcpu, finished);
    OFFSET(cafe_monitor_vcpu, region);
    OFFSET(cafe_monitor_vcpu, slot);
    OFFSET(vmm_config, isa);
    OFFSET(vmm_config, memory_bytes);
    OFFSET(vmm_config, channel_gpa);
    OFFSET(vmm_config, channel_stride);
    OFFSET(vmm_config, region_bytes);
    OFFSET(vmm_config, slot_bytes);
    OFFSET(vmm_config, region_count);
    OFFSET(vmm_config, slot_count);
    OFFSET(vmm_config, vcpu_count);
    OFFSET(vmm_config, gdt_limit);
    OFFSET(vmm_config, idt_limit);
    OFFSET(vmm_config, tss_limit);
    OFFSET(vmm_config, monitor_gpa);
    OFFSET(vmm_config, cr3);
    OFFSET(vmm_config, rip);
    OFFSET(vmm_config, rdi);
    OFFSET(vmm_config, fault_handler);
    OFFSET(vmm_config, deadline_ns);
    OFFSET(vmm_config, vcpus);
    OFFSET(vmm_vcpu, rsp);
    OFFSET(vmm_vcpu, fs_base);
    OFFSET(vmm_vcpu, gdt_base);
    OFFSET(vmm_vcpu, idt_base);
    OFFSET(vmm_vcpu, tss_base);
    OFFSET(vmm_vcpu, fault_stack);
    OFFSET(vmm_vcpu, fault_stack_gpa);
    VALUE(CAFE_ABI_VERSION);
    VALUE(CAFE_PAGE);
    VALUE(CAFE_CHANNEL_MAGIC);
    VALUE(CAFE_CHANNEL_HEADER_BYTES);
    VALUE(CAFE_MAX_SLOTS);
    VALUE(CAFE_MIN_SLOT_BYTES);
    VALUE(CAFE_MAX_SLOT_BYTES);
    VALUE(CAFE_BULK_ALIGN);
    VALUE(CAFE_MAX_BULK_BYTES);
    VALUE(CAFE_MAX_REGIONS);
    VALUE(CAFE_MAX_VCPUS);
    VALUE(CAFE_STATUS_CALLBACK);
    VALUE(CAFE_ENTRY_RETURN);
    VALUE(CAFE_MAX_NESTING);
    VALUE(CAFE_SLOT_FRAME);
    VALUE(CAFE_BOOT_MAGIC);
    VALUE(CAFE_PORT);
    VALUE(VMM_CONFIG_MAGIC);
    VALUE(VMM_VECTOR_UNKNOWN);
    VALUE(VMM_FD);
    VALUE(CAFE_E_TRANSPORT);
    VALUE(CAFE_E_REVOKED);
    VALUE(CAFE_E_CALLBACK);
    VALUE(CAFE_ALL_SLEEP);
    VALUE(CAFE_CHANNEL_DEAD);
    VALUE(CAFE_EXIT_ABORT);
    VALUE(CAFE_EXIT_REST);
    VALUE(VMM_ATTACH);
    VALUE(VMM_DETACH);
    VALUE(VMM_EVENT_HOST);
    VALUE(VMM_EVENT_ATTACHED);
    printf("}\n");
    return 0;
}
