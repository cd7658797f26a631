"""Where everything lies: random linear addresses with unmapped guards around, and offsets in the memory."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from cafe_lib.image.flat import ImageHeader
from cafe_lib.image.manifest import Manifest
from hypervisor_agent.abi import PAGE, channel_bytes
from hypervisor_agent.loader.supervisor import FAULT_STACK, HANDLERS, TABLES
from hypervisor_agent.plan import Access, Region

HUGE: Final = 2 << 20
GUARD_BYTES: Final = 1 << 20
LOWEST: Final = 1 << 30  # far above the first MiB, where null pointers and stray `syscall`s land
HIGHEST: Final = 1 << 46  # of the lower canonical half, the half that nested hypervisors leave alone as well
THREAD_TAIL_BYTES: Final = 2048  # above the thread pointer: the runtime needs 1024 zero bytes there
CHANNEL_GPA: Final = 1 << 35  # behind the largest memory a manifest may ask for
_WINDOW_PAGES: Final = HUGE // PAGE


def round_up(value: int, unit: int) -> int:
    """Return the next multiple of ``unit``."""
    return -(-value // unit) * unit


class AddressSpace:
    """Hands out random, non-overlapping linear ranges."""

    def __init__(self) -> None:
        self._taken: list[tuple[int, int]] = []

    def place(self, size: int, *, guard: int = GUARD_BYTES) -> int:
        """Return an address for ``size`` bytes with guards around, at a 2 MiB boundary if so many."""
        unit = HUGE if size >= HUGE else PAGE
        while True:
            start = LOWEST + secrets.randbelow((HIGHEST - LOWEST - size) // unit) * unit
            if all(start + size + guard <= low or high + guard <= start for low, high in self._taken):
                self._taken.append((start, start + size))
                return start

    def place_together(self, sizes: list[int]) -> list[int]:
        """Return addresses for a few small ranges in one random 2 MiB window, which then share page tables.

        Order and gaps are random; at least one unmapped page is between any two.
        """
        window = self.place(HUGE)
        while True:
            starts = [secrets.randbelow(_WINDOW_PAGES) * PAGE for _ in sizes]
            ranges = sorted((start, start + size) for start, size in zip(starts, sizes, strict=True))
            apart = all(low[1] + PAGE <= high[0] for low, high in pairwise(ranges))
            if apart and ranges[-1][1] <= HUGE:
                return [window + start for start in starts]


@dataclass(frozen=True, slots=True)
class Layout:
    """All regions by name, and what is computed from them."""

    regions: dict[str, Region]
    image_base: int
    thread_pointer: int
    channel_gpa: int
    tables_gpa: int
    """Page tables go here, behind everything else."""

    def __getitem__(self, name: str) -> Region:
        return self.regions[name]


class _Physical:
    """Hands out offsets in the enclave's memory, one behind the other."""

    def __init__(self, start: int) -> None:
        self.end = round_up(start, PAGE)

    def take(self, address: int, size: int) -> int:
        """Return an offset that leaves room for 2 MiB pages where ``size`` has any."""
        if size >= HUGE:
            self.end += (address - self.end) % HUGE
        start, self.end = self.end, self.end + round_up(size, PAGE)
        return start


def lay_out(header: ImageHeader, manifest: Manifest) -> Layout:
    """Choose addresses for one start of this image.

    :param header: checked by ``parse_image_header``.
    :param manifest: verified; its needs are bounded by its parser.
    """
    space, physical = AddressSpace(), _Physical(manifest.image_bytes)
    base = space.place(header.span_bytes)
    regions = list(_image_regions(header, base, physical))
    tls_bytes = round_up(header.tls_bytes, header.tls_align)
    small = {"boot": PAGE, "monitor": PAGE, "thread": round_up(tls_bytes + THREAD_TAIL_BYTES, PAGE)}
    regions += _small_regions(space, physical, small)
    regions += _supervisor_regions(space, physical)
    large = {"stack": manifest.stack_bytes, "arena": manifest.slot_bytes, "heap": manifest.heap_bytes}
    for name, size in large.items():
        address = space.place(size)
        regions.append(Region(name, address, size, Access.WRITE, physical.take(address, size)))
    tables_gpa = physical.end
    size = channel_bytes(manifest.slot_count, manifest.slot_bytes)
    channel = Region("channel", space.place(size), size, Access.WRITE, CHANNEL_GPA)
    by_name = {region.name: region for region in (*regions, channel)}
    thread_pointer = by_name["thread"].address + tls_bytes
    return Layout(by_name, base, thread_pointer, channel.physical, tables_gpa)


def _image_regions(header: ImageHeader, base: int, physical: _Physical) -> Iterator[Region]:
    areas = (
        ("code", header.code_offset, header.code_bytes, Access.EXECUTE),
        ("rodata", header.rodata_offset, header.rodata_bytes, Access.READ),
        ("data", header.data_offset, round_up(header.data_bytes, PAGE), Access.WRITE),
    )
    for name, offset, size, access in areas:
        if size:
            yield Region(name, base + offset, size, access, offset)
    start = round_up(header.file_bytes, PAGE)
    if header.span_bytes > start:
        size = header.span_bytes - start
        yield Region("bss", base + start, size, Access.WRITE, physical.take(base + start, size))


def _small_regions(space: AddressSpace, physical: _Physical, sizes: dict[str, int]) -> Iterator[Region]:
    """Boot, monitor and thread block. The boot page is written over the image's header."""
    addresses = _place_small(space, list(sizes.values()))
    for (name, size), address in zip(sizes.items(), addresses, strict=True):
        if name == "boot":
            yield Region(name, address, size, Access.READ, 0)
        else:
            yield Region(name, address, size, Access.WRITE, physical.take(address, size))


def _place_small(space: AddressSpace, sizes: list[int]) -> list[int]:
    if sum(sizes) > HUGE // 4:
        return [space.place(size) for size in sizes]
    return space.place_together(sizes)


def _supervisor_regions(space: AddressSpace, physical: _Physical) -> Iterator[Region]:
    kinds = (
        (TABLES, Access.SUPERVISOR),
        (HANDLERS, Access.SUPERVISOR | Access.EXECUTE),
        (FAULT_STACK, Access.SUPERVISOR | Access.WRITE),
    )
    addresses = space.place_together([PAGE] * len(kinds))
    for (name, access), address in zip(kinds, addresses, strict=True):
        yield Region(name, address, PAGE, access, physical.take(address, PAGE))
