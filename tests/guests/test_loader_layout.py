"""Whatever a manifest asks for: every part of an enclave has a place of its own, guarded, at little cost."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cafe_lib.image.flat import ImageHeader, parse_image_header
from cafe_lib.image.manifest import Manifest
from hypervisor_agent.abi import PAGE, channel_bytes
from hypervisor_agent.loader import supervisor
from hypervisor_agent.loader.config import vmm_config
from hypervisor_agent.loader.layout import (
    CHANNEL_GPA,
    GUARD_BYTES,
    HIGHEST,
    LOWEST,
    REGIONS,
    AddressSpace,
    Layout,
    channel_region,
    lay_out,
    vcpu_region,
)
from hypervisor_agent.loader.pages import PageTables
from hypervisor_agent.plan import Region

if TYPE_CHECKING:
    from conftest import Probe

HUGE = 2 << 20
OWN = ("stack", "arena", "thread", supervisor.TABLES, supervisor.FAULT_STACK)
GUARDED = ("stack", "arena", "heap", "channel")
IMAGE = {"code", "rodata", "data", "bss"}


def _pages(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high).map(lambda pages: pages * PAGE)


needs = st.fixed_dictionaries(
    {
        "vcpu_count": st.sampled_from([1, 2, 16]) | st.integers(1, 16),
        "stack_bytes": _pages(4, 1 << 16),
        "heap_bytes": _pages(1, 1 << 22),
        "slot_count": st.integers(1, 64),
        "slot_bytes": _pages(1, 1 << 14),
        "bulk_bytes": st.integers(0, 512).map(lambda count: count * HUGE),
    }
)
thread_storage = st.tuples(st.integers(0, 1 << 20), st.sampled_from([1, 16, 64, PAGE]))


@pytest.fixture(scope="module")
def image(probe: Probe) -> tuple[ImageHeader, Manifest]:
    return parse_image_header(memoryview(probe.plain)), probe.manifest(probe.plain)


def _distance(low: Region, high: Region) -> int:
    return high.address - low.end


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(need=needs, storage=thread_storage)
def test_any_needs(
    image: tuple[ImageHeader, Manifest], need: dict[str, int], storage: tuple[int, int]
) -> None:
    header = replace(image[0], tls_bytes=storage[0], tls_align=storage[1])
    manifest = replace(image[1], **need)
    layout = lay_out(header, manifest)
    _expect_each_vcpu_its_own(layout, manifest)
    _expect_parts_apart(layout)
    _expect_memory_not_shared(layout)
    _expect_regions_at_one_stride(layout, manifest)
    _expect_configuration_of_them(layout, header, manifest)


def _expect_each_vcpu_its_own(layout: Layout, manifest: Manifest) -> None:
    for name in OWN:
        parts = {layout.of_vcpu(name, vcpu).address for vcpu in range(manifest.vcpu_count)}
        assert len(parts) == manifest.vcpu_count
        assert vcpu_region(name, manifest.vcpu_count) not in layout.regions


def _expect_parts_apart(layout: Layout) -> None:
    ordered = sorted(layout.regions.values(), key=lambda region: region.address)
    assert ordered[0].address >= LOWEST
    assert ordered[-1].end <= HIGHEST
    for low, high in pairwise(ordered):
        if {low.name, high.name} <= IMAGE:
            assert _distance(low, high) >= 0
        elif low.name.startswith(GUARDED) or high.name.startswith(GUARDED):
            assert _distance(low, high) >= GUARD_BYTES, (low.name, high.name)
        else:
            assert _distance(low, high) >= PAGE, (low.name, high.name)


def _expect_memory_not_shared(layout: Layout) -> None:
    spans = sorted((part.physical, part.physical + part.size, part.name) for part in layout.regions.values())
    for low, high in pairwise(spans):
        assert low[1] <= high[0], (low, high)
    inside = [span for span in spans if not span[2].startswith("channel")]
    assert inside[-1][1] <= layout.tables_gpa < CHANNEL_GPA


def _expect_regions_at_one_stride(layout: Layout, manifest: Manifest) -> None:
    size = channel_bytes(manifest.slot_count, manifest.slot_bytes, manifest.bulk_bytes)
    first, stride = layout["channel"], layout.channel_stride
    assert stride >= size + GUARD_BYTES
    for index in range(REGIONS):
        region = layout[channel_region(index)]
        assert (region.address, region.physical) == (
            first.address + index * stride,
            CHANNEL_GPA + index * stride,
        )
        assert region.size == size == layout.region_bytes
        assert region.address % HUGE == region.physical % HUGE == 0
    assert channel_region(REGIONS) not in layout.regions


def _expect_configuration_of_them(layout: Layout, header: ImageHeader, manifest: Manifest) -> None:
    config = vmm_config(header, manifest, layout, layout.tables_gpa + PAGE)
    assert (config.region_count, config.vcpu_count) == (REGIONS, manifest.vcpu_count)
    assert (config.region_bytes, config.channel_stride) == (layout.region_bytes, layout.channel_stride)
    for number, vcpu in enumerate(config.vcpus):
        stack, fault_stack = (layout.of_vcpu(name, number) for name in ("stack", supervisor.FAULT_STACK))
        assert vcpu.rsp == stack.end - 8
        assert vcpu.rsp % 16 == 8
        assert vcpu.fs_base % header.tls_align == 0
        offset = vcpu.fault_stack - fault_stack.address
        assert (offset, vcpu.fault_stack_gpa) == (PAGE // 2, fault_stack.physical + PAGE // 2)
        tables = layout.of_vcpu(supervisor.TABLES, number)
        assert {base & -PAGE for base in (vcpu.gdt_base, vcpu.idt_base, vcpu.tss_base)} == {tables.address}


@pytest.mark.parametrize("vcpus", [1, 2, 16])
@pytest.mark.parametrize("bulk_bytes", [0, 2 << 20, 64 << 20, 1 << 30])
def test_page_tables_stay_small(image: tuple[ImageHeader, Manifest], vcpus: int, bulk_bytes: int) -> None:
    """An idle enclave holds them in memory, whatever it could use."""
    header, manifest = image
    manifest = replace(manifest, vcpu_count=vcpus, bulk_bytes=bulk_bytes, slot_count=16, heap_bytes=64 << 20)
    layout = lay_out(header, manifest)
    tables = PageTables(layout.tables_gpa)
    tables.add(layout.regions.values())
    assert len(tables.encode()) <= (256 + 32 * vcpus) << 10


@pytest.mark.case("B18")
@pytest.mark.parametrize("count", [1, 3, 33])
def test_small_ranges_in_one_window(count: int) -> None:
    """They fit, are apart, lie in one 2 MiB window and in no order."""
    orders = set()
    for _ in range(30):
        starts = AddressSpace().place_together([PAGE * (1 + index % 3) for index in range(count)])
        ranges = sorted((start, start + PAGE * (1 + index % 3)) for index, start in enumerate(starts))
        assert ranges[0][0] // HUGE == (ranges[-1][1] - 1) // HUGE
        assert all(low[1] + PAGE <= high[0] for low, high in pairwise(ranges))
        orders.add(tuple(sorted(range(count), key=starts.__getitem__)))
    assert count == 1 or len(orders) > 1


@pytest.mark.case("B18")
@pytest.mark.parametrize("vcpus", [2, 16])
def test_nothing_of_a_vcpu_is_predictable(image: tuple[ImageHeader, Manifest], vcpus: int) -> None:
    """Neither from another start nor from another vCPU's part."""
    header, manifest = image[0], replace(image[1], vcpu_count=vcpus)
    seen: dict[tuple[str, int], set[int]] = {}
    for _ in range(8):
        layout = lay_out(header, manifest)
        for name in OWN:
            first, last = layout.of_vcpu(name, 0).address, layout.of_vcpu(name, vcpus - 1).address
            seen.setdefault((name, 0), set()).add(first)
            seen.setdefault((name, 1), set()).add(last - first)
    assert all(len(values) >= 6 for values in seen.values())
