"""The page tables and addresses the loader chooses."""

from __future__ import annotations

import mmap
import struct
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cafe_lib.errors import ImageError
from hypervisor_agent.abi import BOOT, BOOT_VCPU, PAGE
from hypervisor_agent.enclave.walk import user_mappings
from hypervisor_agent.loader import supervisor
from hypervisor_agent.loader.layout import REGIONS, vcpu_region
from hypervisor_agent.loader.pages import PageTables
from hypervisor_agent.plan import Access, EnclavePlan, Region

if TYPE_CHECKING:
    from conftest import Probe

HUGE = 2 << 20
NO_EXECUTE = 1 << 63


def _leaves(memory: mmap.mmap, table: int, level: int = 4, start: int = 0) -> dict[int, tuple[int, int]]:
    """Return address -> (entry, length) of every leaf, by a walk of its own."""
    found = {}
    for index, entry in enumerate(struct.unpack_from("<512Q", memory, table)):
        unit = PAGE << 9 * (level - 1)
        if not entry & 1:
            continue
        if level == 1 or (level == 2 and entry & 0x80):
            found[start + index * unit] = (entry, unit)
        else:
            found |= _leaves(memory, entry & 0x000FFFFFFFFFF000, level - 1, start + index * unit)
    return found


def _open(plan: EnclavePlan) -> mmap.mmap:
    return mmap.mmap(plan.memory.fd, plan.config.memory_bytes, prot=mmap.PROT_READ)


NEEDS = {
    "small": {},
    "large heap": {"heap_bytes": (64 << 20) + 4096},
    "large slots": {"slot_bytes": 4 << 20, "slot_count": 3},
    "large stack": {"stack_bytes": (8 << 20) + 8192},
    "most slots": {"slot_count": 64, "slot_bytes": 8192},
    "bulk": {"bulk_bytes": 6 << 20},
    "two vCPUs": {"vcpu_count": 2},
    "most vCPUs": {"vcpu_count": 16, "slot_bytes": 4 << 20, "stack_bytes": (2 << 20) + 4096},
}


@pytest.mark.case("B20", "C03")
@pytest.mark.parametrize("name", NEEDS)
def test_mapped_is_exactly_what_the_regions_say(probe: Probe, name: str) -> None:
    plan = probe.plan(**NEEDS[name])
    with _open(plan) as memory:
        leaves = _leaves(memory, plan.config.cr3)
    plan.memory.wipe()
    assert sum(size for _, size in leaves.values()) == sum(region.size for region in plan.regions)
    tables = range(plan.config.cr3, plan.config.memory_bytes)
    for address, (entry, size) in leaves.items():
        region = next(part for part in plan.regions if part.address <= address < part.end)
        assert address + size <= region.end
        assert entry & 0x000FFFFFFFFFF000 == region.physical + address - region.address
        writable, executable, user = bool(entry & 2), not entry & NO_EXECUTE, bool(entry & 4)
        assert not (writable and executable)
        assert writable == (Access.WRITE in region.access)
        assert executable == (Access.EXECUTE in region.access)
        assert user == (Access.SUPERVISOR not in region.access)
        assert entry & 0x000FFFFFFFFFF000 not in tables, "page tables are not mapped"
        assert address >= 1 << 20


def test_large_areas_use_large_pages(probe: Probe) -> None:
    plan = probe.plan(heap_bytes=(64 << 20) + 4096)
    with _open(plan) as memory:
        leaves = _leaves(memory, plan.config.cr3)
        mappings = user_mappings(memoryview(memory), plan.config.cr3)
    plan.memory.wipe()
    heap = next(region for region in plan.regions if region.name == "heap")
    sizes = [size for address, (_, size) in leaves.items() if heap.address <= address < heap.end]
    assert sizes.count(HUGE) == 32
    assert sizes.count(PAGE) == 1
    assert any((part.address, part.size) == (heap.address, heap.size) for part in mappings)


@pytest.mark.case("B20")
def test_areas_are_apart(probe: Probe) -> None:
    for _ in range(20):
        plan = probe.plan()
        plan.memory.wipe()
        ordered = sorted(plan.regions, key=lambda region: region.address)
        image = {"code", "rodata", "data", "bss"}
        for low, high in pairwise(ordered):
            assert low.end + (0 if {low.name, high.name} <= image else PAGE) <= high.address


@pytest.mark.case("B18")
def test_addresses_are_random(probe: Probe) -> None:
    seen: dict[str, set[int]] = {}
    for _ in range(16):
        plan = probe.plan()
        plan.memory.wipe()
        for region in plan.regions:
            seen.setdefault(region.name, set()).add(region.address)
    assert all(len(addresses) == 16 for addresses in seen.values())


@pytest.mark.parametrize("vcpus", [1, 2, 16])
def test_boot_page_replaces_the_header(probe: Probe, vcpus: int) -> None:
    plan = probe.plan(vcpu_count=vcpus, bulk_bytes=4 << 20)
    with _open(plan) as memory:
        page = memory[:PAGE]
    plan.memory.wipe()
    regions = {region.name: region for region in plan.regions}
    values = BOOT.unpack_from(page)
    assert values[2:5] == (2, 65536, 4 << 20)
    assert values[5] == plan.image_base == regions["code"].address - PAGE
    assert values[6:8] == (regions["heap"].address, regions["heap"].size)
    stride = regions["channel region 1"].address - regions["channel"].address
    assert values[8:10] == (regions["channel"].address, stride)
    assert values[10:12] == (REGIONS, vcpus)
    assert values[12] == regions["monitor"].address
    assert values[14] == plan.config.isa
    assert any(values[15])
    for number in range(vcpus):
        arena, thread = BOOT_VCPU.unpack_from(page, BOOT.size + number * BOOT_VCPU.size)
        assert arena == regions[vcpu_region("arena", number)].address
        block = regions[vcpu_region("thread", number)]
        assert block.address <= thread <= block.end - 1024
        assert thread == plan.config.vcpus[number].fs_base
    assert not any(page[BOOT.size + vcpus * BOOT_VCPU.size :])


def test_writable_and_executable_is_refused() -> None:
    region = Region("bad", 1 << 30, PAGE, Access.WRITE | Access.EXECUTE, 0)
    with pytest.raises(ImageError, match="both"):
        PageTables(0).add([region])


def test_one_page_twice_is_refused() -> None:
    region = Region("one", 1 << 30, PAGE, Access.READ, 0)
    with pytest.raises(ImageError, match="share"):
        PageTables(0).add([region, region])


PAGES = st.integers(0, (1 << 34) - 1)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(PAGES, st.integers(1, 1200), PAGES, st.sampled_from([0, 1, 2, 4, 5, 6])), max_size=5)
)
def test_any_regions(parts: list[tuple[int, int, int, int]]) -> None:
    """Whatever is asked for is mapped, page by page, or refused because it overlaps."""
    regions = [
        Region("any", page * PAGE, count * PAGE, Access(access), physical * PAGE)
        for page, count, physical, access in parts
    ]
    regions = [region for region in regions if region.end <= 1 << 47]
    tables, start = PageTables(1 << 20), 1 << 20
    try:
        tables.add(regions)
    except ImageError:
        spans = sorted((region.address, region.end) for region in regions)
        assert any(low[1] > high[0] for low, high in pairwise(spans))
        return
    memory = bytes(start) + tables.encode()
    leaves = _leaves(memory, start)  # type: ignore[arg-type]
    mapped = {
        address + offset: (entry & 0x000FFFFFFFFFF000) + offset
        for address, (entry, size) in leaves.items()
        for offset in range(0, size, PAGE)
    }
    wanted = {
        region.address + offset: region.physical + offset
        for region in regions
        for offset in range(0, region.size, PAGE)
    }
    assert mapped == wanted


@pytest.mark.case("B19")
def test_one_port_in_the_bitmap() -> None:
    page = supervisor.tables_page(1 << 30, 1 << 31, 1 << 32)
    tss = page[supervisor.TSS_OFFSET : supervisor.TSS_OFFSET + supervisor.TSS_BYTES]
    bitmap = tss[struct.unpack_from("<H", tss, 102)[0] :]
    allowed = [port for port in range(8 * len(bitmap)) if not bitmap[port // 8] >> port % 8 & 1]
    assert allowed == [0x10]


def test_gates_lead_to_hlt() -> None:
    tables, handlers = 0x123456789000, 0x3FFFFFFFF000
    page, code = supervisor.tables_page(tables, handlers, 1 << 32), supervisor.handlers_page()
    for vector in range(32):
        low, selector, ist, kind, middle, high, zero = struct.unpack_from(
            "<HHBBHII", page, supervisor.IDT_OFFSET + 16 * vector
        )
        target = low | middle << 16 | high << 32
        assert target == handlers + 16 * vector
        assert code[target - handlers] == 0xF4
        assert (selector, ist, zero) == (8, 0, 0)
        assert kind == (0xEE if vector == 3 else 0x8E)
