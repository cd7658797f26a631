"""Where everything lies: random linear addresses with unmapped guards around, and offsets in the memory."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cafe_lib.image.flat import ImageHeader
from cafe_lib.image.manifest import Manifest
from hypervisor_agent.abi import MONITOR_BYTES, PAGE, channel_bytes
from hypervisor_agent.loader.supervisor import FAULT_STACK, HANDLERS, TABLES
from hypervisor_agent.plan import Access, Region

HUGE: Final = 2 << 20
GUARD_BYTES: Final = 1 << 20
LOWEST: Final = 1 << 30  # far above the first MiB, where null pointers and stray `syscall`s land
HIGHEST: Final = 1 << 46  # of the lower canonical half, the half that nested hypervisors leave alone as well
THREAD_TAIL_BYTES: Final = 2048  # above the thread pointer: the runtime needs 1024 zero bytes there
CHANNEL_GPA: Final = 1 << 35  # behind the largest memory a manifest may ask for
REGIONS: Final = 8
"""How many guest processes may use one enclave at a time."""
_WINDOW_PAGES: Final = HUGE // PAGE
_random: Final = secrets.SystemRandom()


def vcpu_region(name: str, vcpu: int) -> str:
    """Return the name of a vCPU's own ``name``; the first one's is the plain name."""
    return f"{name} of vCPU {vcpu}" if vcpu else name


def channel_region(index: int) -> str:
    """Return the name of a channel region; the first one's is the plain name."""
    return f"channel region {index}" if index else "channel"


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

        Order and gaps are random; at least one unmapped page is between any two. Together with those pages
        they must fit.
        """
        window = self.place(HUGE)
        pages = [round_up(size, PAGE) // PAGE + 1 for size in sizes]
        free = _WINDOW_PAGES - sum(pages)
        order = list(range(len(sizes)))
        _random.shuffle(order)
        gaps = sorted(secrets.randbelow(free + 1) for _ in sizes)
        starts, used = [0] * len(sizes), 0
        for gap, index in zip(gaps, order, strict=True):
            starts[index] = window + (gap + used) * PAGE
            used += pages[index]
        return starts


@dataclass(frozen=True, slots=True)
class Layout:
    """All regions by name, and what is computed from them."""

    regions: dict[str, Region]
    image_base: int
    tls_bytes: int
    """How far a thread pointer is from the start of its thread block."""
    vcpu_count: int
    region_bytes: int
    channel_stride: int
    """From one channel region to the next, in both address spaces."""
    tables_gpa: int
    """Page tables go here, behind everything else."""

    def __getitem__(self, name: str) -> Region:
        return self.regions[name]

    def of_vcpu(self, name: str, vcpu: int) -> Region:
        """Return a vCPU's own region."""
        return self.regions[vcpu_region(name, vcpu)]

    def thread_pointer(self, vcpu: int) -> int:
        """Return a vCPU's FS base."""
        return self.of_vcpu("thread", vcpu).address + self.tls_bytes


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
    vcpus = manifest.vcpu_count
    base = space.place(header.span_bytes)
    tls_bytes = round_up(header.tls_bytes, header.tls_align)
    regions = [
        *_image_regions(header, base, physical),
        *_small_regions(space, physical, round_up(tls_bytes + THREAD_TAIL_BYTES, PAGE), vcpus),
        *_supervisor_regions(space, physical, vcpus),
        *_large_regions(space, physical, manifest),
    ]
    region_bytes = channel_bytes(manifest.slot_count, manifest.slot_bytes, manifest.bulk_bytes)
    stride = round_up(region_bytes, HUGE) + HUGE  # with a guard that keeps the next one at 2 MiB
    by_name = {region.name: region for region in (*regions, *_channel_regions(space, region_bytes, stride))}
    return Layout(by_name, base, tls_bytes, vcpus, region_bytes, stride, physical.end)


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


def _small_regions(
    space: AddressSpace, physical: _Physical, thread_bytes: int, vcpus: int
) -> Iterator[Region]:
    """Boot, monitor and thread blocks. The boot page is written over the image's header."""
    sizes = {"boot": PAGE, "monitor": round_up(MONITOR_BYTES, PAGE)}
    sizes |= {vcpu_region("thread", vcpu): thread_bytes for vcpu in range(vcpus)}
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


def _supervisor_regions(space: AddressSpace, physical: _Physical, vcpus: int) -> Iterator[Region]:
    """One page of handlers; tables and a fault stack for each vCPU."""
    kinds = {HANDLERS: Access.SUPERVISOR | Access.EXECUTE}
    for vcpu in range(vcpus):
        kinds[vcpu_region(TABLES, vcpu)] = Access.SUPERVISOR
        kinds[vcpu_region(FAULT_STACK, vcpu)] = Access.SUPERVISOR | Access.WRITE
    addresses = space.place_together([PAGE] * len(kinds))
    for (name, access), address in zip(kinds.items(), addresses, strict=True):
        yield Region(name, address, PAGE, access, physical.take(address, PAGE))


def _large_regions(space: AddressSpace, physical: _Physical, manifest: Manifest) -> Iterator[Region]:
    sizes = {"heap": manifest.heap_bytes}
    for vcpu in range(manifest.vcpu_count):
        sizes[vcpu_region("stack", vcpu)] = manifest.stack_bytes
        sizes[vcpu_region("arena", vcpu)] = manifest.slot_bytes
    for name, size in sizes.items():
        address = space.place(size)
        yield Region(name, address, size, Access.WRITE, physical.take(address, size))


def _channel_regions(space: AddressSpace, region_bytes: int, stride: int) -> Iterator[Region]:
    """Regions at 2 MiB boundaries, so that large pages serve all but the last part of each."""
    start = space.place(REGIONS * stride)
    for index in range(REGIONS):
        offset = index * stride
        yield Region(channel_region(index), start + offset, region_bytes, Access.WRITE, CHANNEL_GPA + offset)
