"""Reads the page tables the loader wrote, so that the emulator maps just what the CPU would.

Source: Intel SDM vol. 3, 4.5 (4-level paging).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cafe_lib.errors import MalformedError
from hypervisor_agent.abi import PAGE

_PRESENT: Final = 1
_WRITABLE: Final = 2
_USER: Final = 4
_HUGE: Final = 0x80
_NO_EXECUTE: Final = 1 << 63
_ADDRESS: Final = 0x000F_FFFF_FFFF_F000
_ENTRIES: Final = 512
_ROOT_LEVEL: Final = 4
_HUGE_LEVEL: Final = 2


@dataclass(frozen=True, slots=True)
class Mapping:
    """A range that ring 3 may use: linear address, guest-physical address, length, rights."""

    address: int
    physical: int
    size: int
    writable: bool
    executable: bool

    def extends(self, other: Mapping) -> bool:
        """Say whether this range continues ``other`` in both address spaces with the same rights."""
        adjacent = (self.address, self.physical) == (other.address + other.size, other.physical + other.size)
        return adjacent and (self.writable, self.executable) == (other.writable, other.executable)


def user_mappings(memory: memoryview, cr3: int) -> list[Mapping]:
    """Return what ring 3 may use, ascending; supervisor pages are left out.

    :raises MalformedError: a table lies outside ``memory``.
    """
    found: list[Mapping] = []
    for leaf in _leaves(memory, cr3, _ROOT_LEVEL, 0):
        if found and leaf.extends(found[-1]):
            last = found.pop()
            size = last.size + leaf.size
            found.append(Mapping(last.address, last.physical, size, last.writable, last.executable))
        else:
            found.append(leaf)
    return found


def _leaves(memory: memoryview, table: int, level: int, start: int) -> Iterator[Mapping]:
    if table + PAGE > len(memory):
        raise MalformedError("a page table lies outside the enclave's memory")
    unit = PAGE << 9 * (level - 1)
    entries = memory[table : table + PAGE].cast("Q")
    for index in range(_ENTRIES):
        entry = entries[index]
        if not entry & _PRESENT or not entry & _USER:
            continue
        address, physical = start + index * unit, entry & _ADDRESS
        if level == 1 or (level == _HUGE_LEVEL and entry & _HUGE):
            yield Mapping(address, physical, unit, bool(entry & _WRITABLE), not entry & _NO_EXECUTE)
        else:
            yield from _leaves(memory, physical, level - 1, address)
