"""The supervisor pages: descriptor tables, a TSS that allows one port, and one-byte fault handlers.

The enclave has no kernel: a fault goes through its gate to a ``hlt``, which ends in the VMM with vector,
error code, RIP and CR2 at hand. Source: Intel SDM vol. 3, 3.5 (descriptors), 6.14 (gates), 7.7 (TSS).
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Final

from hypervisor_agent.abi import PAGE, PORT

TABLES: Final = "tables"
HANDLERS: Final = "handlers"
FAULT_STACK: Final = "fault stack"

GDT_OFFSET: Final = 0
IDT_OFFSET: Final = 0x400
TSS_OFFSET: Final = 0x800
GATES: Final = 32
GATE_STRIDE: Final = 16  # bytes from one handler to the next
STACK_TOP: Final = PAGE // 2  # within its page: neither end of the stack is near another page
_KERNEL_CODE: Final = 0x00AF9B000000FFFF
_KERNEL_DATA: Final = 0x00CF93000000FFFF
_USER_DATA: Final = 0x00CFF3000000FFFF
_USER_CODE: Final = 0x00AFFB000000FFFF
_BUSY_TSS: Final = 0x8B << 40
_SELECTOR_KERNEL_CODE: Final = 0x08
_GATE: Final = 0x8E  # present, DPL 0, interrupt gate
_USER_GATE: Final = 0xEE  # the same for ring 3
_BREAKPOINT: Final = 3
_TSS_FIXED_BYTES: Final = 104
_TSS_BITMAP_BYTES: Final = PORT // 8 + 1
_HLT: Final = 0xF4
_INT3: Final = 0xCC

GDT_BYTES: Final = 10 * 8
IDT_BYTES: Final = GATES * 16
TSS_BYTES: Final = _TSS_FIXED_BYTES + _TSS_BITMAP_BYTES + 1  # the bitmap ends with a byte of ones


def tables_page(address: int, handlers: int, fault_stack_top: int) -> bytes:
    """Return the page at linear ``address`` that holds GDT, IDT and TSS."""
    page = bytearray(PAGE)
    page[GDT_OFFSET : GDT_OFFSET + GDT_BYTES] = _gdt(address + TSS_OFFSET)
    page[IDT_OFFSET : IDT_OFFSET + IDT_BYTES] = _idt(handlers)
    page[TSS_OFFSET : TSS_OFFSET + TSS_BYTES] = _tss(fault_stack_top)
    return bytes(page)


@cache
def handlers_page() -> bytes:
    """Return the page of ``hlt`` handlers; what lies between them traps."""
    page = bytearray([_INT3]) * PAGE
    for vector in range(GATES):
        page[GATE_STRIDE * vector] = _HLT
    return bytes(page)


def _gdt(tss: int) -> bytes:
    low = (TSS_BYTES - 1) | (tss & 0xFFFFFF) << 16 | _BUSY_TSS | (tss >> 24 & 0xFF) << 56
    # Selectors 0x08 and 0x10 (ring 0), 0x2b and 0x33 (ring 3), 0x40 (TSS), as the VMM sets them.
    return struct.pack("<10Q", 0, _KERNEL_CODE, _KERNEL_DATA, 0, 0, _USER_DATA, _USER_CODE, 0, low, tss >> 32)


def _idt(handlers: int) -> bytes:
    """Return the gates; the handlers lie in one page, so only the lowest part of their addresses differs."""
    words: list[int] = []
    for vector in range(GATES):
        kind = _USER_GATE if vector == _BREAKPOINT else _GATE
        low = (handlers & 0xFFFF) + GATE_STRIDE * vector | _SELECTOR_KERNEL_CODE << 16
        words += (low | kind << 40 | (handlers >> 16 & 0xFFFF) << 48, handlers >> 32)
    return struct.pack(f"<{len(words)}Q", *words)


def _tss(fault_stack_top: int) -> bytes:
    fixed = bytearray(_TSS_FIXED_BYTES)
    struct.pack_into("<Q", fixed, 4, fault_stack_top)  # RSP0
    struct.pack_into("<H", fixed, 102, _TSS_FIXED_BYTES)  # where the I/O bitmap starts
    bitmap = bytearray(b"\xff" * (_TSS_BITMAP_BYTES + 1))
    bitmap[PORT // 8] &= ~(1 << PORT % 8)
    return bytes(fixed + bitmap)
