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
    SIZE(vmm_event);
    SIZE(cafe_boot);
    SIZE(cafe_monitor);
    OFFSET(cafe_channel_header, slot_bytes);
    OFFSET(cafe_channel_header, region_bytes);
    OFFSET(cafe_channel_header, state);
    OFFSET(cafe_channel_header, status);
    OFFSET(cafe_channel_header, sleeping);
    OFFSET(cafe_channel_header, bell);
    OFFSET(cafe_slot, reply);
    OFFSET(cafe_slot, request);
    OFFSET(cafe_boot, seed);
    OFFSET(vmm_config, memory_bytes);
    OFFSET(vmm_config, channel_bytes);
    OFFSET(vmm_config, channel_gpa);
    OFFSET(vmm_config, monitor_gpa);
    OFFSET(vmm_config, cr3);
    OFFSET(vmm_config, rip);
    OFFSET(vmm_config, rsp);
    OFFSET(vmm_config, rdi);
    OFFSET(vmm_config, fs_base);
    OFFSET(vmm_config, gdt_base);
    OFFSET(vmm_config, idt_base);
    OFFSET(vmm_config, tss_base);
    OFFSET(vmm_config, gdt_limit);
    OFFSET(vmm_config, idt_limit);
    OFFSET(vmm_config, tss_limit);
    OFFSET(vmm_config, slot_count);
    OFFSET(vmm_config, slot_bytes);
    OFFSET(vmm_config, deadline_ns);
    OFFSET(vmm_config, fault_stack);
    OFFSET(vmm_config, fault_handler);
    OFFSET(vmm_config, fault_stack_gpa);
    VALUE(CAFE_ABI_VERSION);
    VALUE(CAFE_CHANNEL_MAGIC);
    VALUE(CAFE_CHANNEL_HEADER_BYTES);
    VALUE(CAFE_MAX_SLOTS);
    VALUE(CAFE_MIN_SLOT_BYTES);
    VALUE(CAFE_MAX_SLOT_BYTES);
    VALUE(CAFE_BOOT_MAGIC);
    VALUE(CAFE_PORT);
    VALUE(VMM_CONFIG_MAGIC);
    VALUE(VMM_VECTOR_UNKNOWN);
    VALUE(CAFE_E_TRANSPORT);
    VALUE(CAFE_E_REVOKED);
    VALUE(CAFE_EXIT_ABORT);
    VALUE(VMM_EVENT_HOST);
    printf("}\n");
    return 0;
}
