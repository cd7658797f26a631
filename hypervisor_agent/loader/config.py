"""Fills ``struct vmm_config`` from a layout."""

from __future__ import annotations

from cafe_lib.image.flat import ImageHeader
from cafe_lib.image.manifest import Manifest
from hypervisor_agent.abi import VmmConfig, VmmVcpu
from hypervisor_agent.loader import supervisor
from hypervisor_agent.loader.layout import CHANNEL_GPA, REGIONS, Layout

_NS_PER_MS = 1_000_000


def vmm_config(header: ImageHeader, manifest: Manifest, layout: Layout, memory_bytes: int) -> VmmConfig:
    """Return the configuration; ``memory_bytes`` is the final size of the memory, page tables included."""
    return VmmConfig(
        isa=manifest.isa,
        memory_bytes=memory_bytes,
        channel_gpa=CHANNEL_GPA,
        channel_stride=layout.channel_stride,
        region_bytes=layout.region_bytes,
        slot_bytes=manifest.slot_bytes,
        region_count=REGIONS,
        slot_count=manifest.slot_count,
        vcpu_count=layout.vcpu_count,
        gdt_limit=supervisor.GDT_BYTES - 1,
        idt_limit=supervisor.IDT_BYTES - 1,
        tss_limit=supervisor.TSS_BYTES - 1,
        monitor_gpa=layout["monitor"].physical,
        cr3=layout.tables_gpa,
        rip=layout.image_base + header.entry_offset,
        rdi=layout["boot"].address,
        fault_handler=layout[supervisor.HANDLERS].address,
        deadline_ns=manifest.deadline_ms * _NS_PER_MS,
        vcpus=tuple(_vcpu(layout, number) for number in range(layout.vcpu_count)),
    )


def _vcpu(layout: Layout, number: int) -> VmmVcpu:
    tables = layout.of_vcpu(supervisor.TABLES, number)
    fault_stack = layout.of_vcpu(supervisor.FAULT_STACK, number)
    return VmmVcpu(
        rsp=layout.of_vcpu("stack", number).end - 8,  # a zero return address, as if it had been called
        fs_base=layout.thread_pointer(number),
        gdt_base=tables.address + supervisor.GDT_OFFSET,
        idt_base=tables.address + supervisor.IDT_OFFSET,
        tss_base=tables.address + supervisor.TSS_OFFSET,
        fault_stack=fault_stack.address + supervisor.STACK_TOP,
        fault_stack_gpa=fault_stack.physical + supervisor.STACK_TOP,
    )
