"""Fills ``struct vmm_config`` from a layout."""

from __future__ import annotations

from cafe_lib.image.flat import ImageHeader
from cafe_lib.image.manifest import Manifest
from hypervisor_agent.abi import VmmConfig
from hypervisor_agent.loader import supervisor
from hypervisor_agent.loader.layout import Layout

_NS_PER_MS = 1_000_000


def vmm_config(header: ImageHeader, manifest: Manifest, layout: Layout, memory_bytes: int) -> VmmConfig:
    """Return the configuration; ``memory_bytes`` is the final size of the memory, page tables included."""
    tables, stack = layout[supervisor.TABLES], layout[supervisor.FAULT_STACK]
    return VmmConfig(
        isa=manifest.isa,
        memory_bytes=memory_bytes,
        channel_bytes=layout["channel"].size,
        channel_gpa=layout.channel_gpa,
        monitor_gpa=layout["monitor"].physical,
        cr3=layout.tables_gpa,
        rip=layout.image_base + header.entry_offset,
        rsp=layout["stack"].end - 8,  # a zero return address, as if `rt_entry` had been called
        rdi=layout["boot"].address,
        fs_base=layout.thread_pointer,
        gdt_base=tables.address + supervisor.GDT_OFFSET,
        idt_base=tables.address + supervisor.IDT_OFFSET,
        tss_base=tables.address + supervisor.TSS_OFFSET,
        gdt_limit=supervisor.GDT_BYTES - 1,
        idt_limit=supervisor.IDT_BYTES - 1,
        tss_limit=supervisor.TSS_BYTES - 1,
        slot_count=manifest.slot_count,
        slot_bytes=manifest.slot_bytes,
        deadline_ns=manifest.deadline_ms * _NS_PER_MS,
        fault_stack=stack.address + supervisor.STACK_TOP,
        fault_handler=layout[supervisor.HANDLERS].address,
        fault_stack_gpa=stack.physical + supervisor.STACK_TOP,
    )
