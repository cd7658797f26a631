"""Page tables for a layout: 2 MiB pages where size and alignment allow, no page both writable and executable.

Source: Intel SDM vol. 3, 4.5 (4-level paging). The tables themselves are not mapped into the enclave.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from functools import cache
from typing import Final

from cafe_lib.errors import ImageError
from hypervisor_agent.abi import PAGE
from hypervisor_agent.plan import Access, Region

_PRESENT: Final = 1
_WRITABLE: Final = 2
_USER: Final = 4
_ACCESSED: Final = 0x20  # set in advance, so that the CPU never has to write to a table
_DIRTY: Final = 0x40
_HUGE: Final = 0x80
_NO_EXECUTE: Final = 1 << 63
_HUGE_BYTES: Final = 2 << 20
_ENTRIES: Final = 512
_TABLE: Final = _PRESENT | _WRITABLE | _USER | _ACCESSED
_ROOT_LEVEL: Final = 4
_EMPTY: Final = bytes(PAGE)


@cache
def _leaf_flags(access: Access) -> int:
    if Access.WRITE in access and Access.EXECUTE in access:
        raise ImageError("a region is both writable and executable")
    flags = _PRESENT | _ACCESSED
    flags |= 0 if Access.SUPERVISOR in access else _USER
    flags |= _WRITABLE | _DIRTY if Access.WRITE in access else 0
    return flags | (0 if Access.EXECUTE in access else _NO_EXECUTE)


class PageTables:
    """Builds four-level tables that will lie at guest-physical ``start``, the root first."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._tables = [array("Q", _EMPTY)]
        self._numbers: dict[tuple[int, int], int] = {}

    def add(self, regions: Iterable[Region]) -> None:
        """Map the regions; they are page-aligned and don't overlap.

        :raises ImageError: a page would be writable and executable, or is mapped already.
        """
        for region in regions:
            self._map(region)

    def encode(self) -> bytes:
        """Return all tables, to be written at ``start``."""
        return b"".join(self._tables)

    def _map(self, region: Region) -> None:
        flags = _leaf_flags(region.access)
        address, physical = region.address, region.physical
        aligned = (address - physical) % _HUGE_BYTES == 0
        while address < region.end:
            if aligned and address % _HUGE_BYTES == 0 and region.end - address >= _HUGE_BYTES:
                size = self._fill(2, address, physical, region.end, flags | _HUGE)
            else:
                size = self._fill(1, address, physical, region.end, flags)
            address, physical = address + size, physical + size

    def _fill(self, level: int, address: int, physical: int, end: int, flags: int) -> int:
        """Fill leaves of one table and return how many bytes they map; 4 KiB leaves stop at 2 MiB."""
        unit = PAGE if level == 1 else _HUGE_BYTES
        first = address // unit % _ENTRIES
        count = min(_ENTRIES - first, (end - address) // unit)
        table = self._table(level, address)
        if any(table[first : first + count]):
            raise ImageError("two regions share a page")
        leaf = physical | flags
        table[first : first + count] = array("Q", range(leaf, leaf + count * unit, unit))
        return count * unit

    def _table(self, level: int, address: int) -> array[int]:
        """Return the table of ``level`` that covers ``address``, making those above it as well."""
        if level == _ROOT_LEVEL:
            return self._tables[0]
        key = (level, address >> 12 + 9 * level)
        number = self._numbers.get(key)
        if number is None:
            above = self._table(level + 1, address)
            number = self._numbers[key] = len(self._tables)
            self._tables.append(array("Q", _EMPTY))
            above[key[1] % _ENTRIES] = self._start + number * PAGE | _TABLE
        return self._tables[number]
