"""The VMM's judgement of its configuration: a table of bad ones, and any bytes, under ASan and UBSan."""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hypervisor_agent.abi import CONFIG_BYTES, VmmConfig

if TYPE_CHECKING:
    from conftest import Probe

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ConfigCheck = Callable[[list[bytes]], list[str]]
GIB = 1 << 30
TOP = (1 << 64) - 1


@pytest.fixture(scope="module")
def config_check(tmp_path_factory: pytest.TempPathFactory) -> ConfigCheck:
    """Build the validator alone with sanitizers; return what judges configurations."""
    program = tmp_path_factory.mktemp("config") / "config_check"
    vmm = ROOT / "hypervisor_agent" / "vmm"
    flags = [
        "-std=gnu17",
        "-g",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wconversion",
        "-fsanitize=address,undefined",
    ]
    includes = ["-I", str(ROOT / "cafe_lib" / "include"), "-I", str(vmm)]
    sources = [str(HERE / "config_check.c"), str(vmm / "config.c")]
    command = ["gcc", *flags, "-fno-sanitize-recover=all", *includes, *sources, "-o", str(program)]
    subprocess.run(command, check=True)

    def check(configs: list[bytes]) -> list[str]:
        done = subprocess.run([str(program)], input=b"".join(configs), capture_output=True, check=True)
        assert not done.stderr
        return done.stdout.decode().split()

    return check


# The field that must be named, and what is changed in a good configuration.
BAD: dict[str, tuple[str, dict[str, int]]] = {
    "isa 0": ("isa", {"isa": 0}),
    "isa 4": ("isa", {"isa": 4}),
    "no memory": ("memory_bytes", {"memory_bytes": 0}),
    "memory of no whole pages": ("memory_bytes", {"memory_bytes": 4097}),
    "memory too large": ("memory_bytes", {"memory_bytes": 128 * GIB}),
    "memory wraps": ("memory_bytes", {"memory_bytes": TOP & ~4095}),
    "no slots": ("slot_count", {"slot_count": 0}),
    "too many slots": ("slot_count", {"slot_count": 65}),
    "slots 2^32-1": ("slot_count", {"slot_count": 0xFFFFFFFF}),
    "slot too small": ("slot_bytes", {"slot_bytes": 2048}),
    "slot too large": ("slot_bytes", {"slot_bytes": (64 << 20) + 4096}),
    "slot of no whole pages": ("slot_bytes", {"slot_bytes": 4104}),
    "no regions": ("region_count", {"region_count": 0}),
    "too many regions": ("region_count", {"region_count": 17}),
    "regions 2^32-1": ("region_count", {"region_count": 0xFFFFFFFF}),
    "region smaller than its slots": ("region_bytes", {"region_bytes": 4096}),
    "region of no whole pages": ("region_bytes", {"region_bytes": 4096 + 2 * 65536 + 8}),
    "region wraps": ("region_bytes", {"region_bytes": TOP & ~4095}),
    "regions overlap": ("channel_stride", {"channel_stride": 4096}),
    "stride of no whole pages": ("channel_stride", {"channel_stride": (4 << 20) + 8}),
    "stride wraps": ("channel_stride", {"channel_stride": TOP & ~4095}),
    "no vCPU": ("vcpu_count", {"vcpu_count": 0}),
    "too many vCPUs": ("vcpu_count", {"vcpu_count": 17}),
    "vCPUs 2^32-1": ("vcpu_count", {"vcpu_count": 0xFFFFFFFF}),
    "no deadline": ("deadline_ns", {"deadline_ns": 0}),
    "deadline too long": ("deadline_ns", {"deadline_ns": TOP}),
    "channel in memory": ("channel_gpa", {"channel_gpa": 0}),
    "channel unaligned": ("channel_gpa", {"channel_gpa": (1 << 35) + 8}),
    "channel too high": ("channel_gpa", {"channel_gpa": 1 << 40}),
    "channel wraps": ("channel_gpa", {"channel_gpa": TOP & ~4095}),
    "monitor outside": ("monitor_gpa", {"monitor_gpa": 1 << 40}),
    "monitor wraps": ("monitor_gpa", {"monitor_gpa": TOP - 7}),
    "monitor unaligned": ("monitor_gpa", {"monitor_gpa": 4}),
    "page tables outside": ("cr3", {"cr3": 1 << 40}),
    "page tables unaligned": ("cr3", {"cr3": 0x1008}),
    "page tables wrap": ("cr3", {"cr3": TOP & ~4095}),
    "entry at null": ("rip", {"rip": 0}),
    "entry in kernel half": ("rip", {"rip": 1 << 63}),
    "entry not canonical": ("rip", {"rip": 1 << 47}),
    "boot page low": ("rdi", {"rdi": 4096}),
    "boot page at the end": ("rdi", {"rdi": (1 << 47) - 8}),
    "gdt limit": ("gdt_limit", {"gdt_limit": 4096}),
    "idt limit small": ("idt_limit", {"idt_limit": 255}),
    "idt limit large": ("idt_limit", {"idt_limit": 4095}),
    "tss limit small": ("tss_limit", {"tss_limit": 103}),
    "tss limit large": ("tss_limit", {"tss_limit": 0xFFFFFFFF}),
    "handlers unaligned": ("fault_handler", {"fault_handler": GIB + 1}),
    "handlers low": ("fault_handler", {"fault_handler": 16}),
}
# The same for one vCPU.
BAD_VCPU: dict[str, tuple[str, int]] = {
    "stack at null": ("rsp", 8),
    "stack unaligned": ("rsp", GIB + 4),
    "stack not canonical": ("rsp", 1 << 47),
    "thread pointer low": ("fs_base", 0),
    "gdt low": ("gdt_base", 0),
    "idt at the end": ("idt_base", (1 << 47) - 16),
    "tss wraps": ("tss_base", TOP),
    "ring 0 stack low": ("fault_stack", 0),
    "ring 0 stack unaligned": ("fault_stack", GIB + 8),
    "fault stack below 0": ("fault_stack_gpa", 0),
    "fault stack outside": ("fault_stack_gpa", 1 << 40),
    "fault stack unaligned": ("fault_stack_gpa", 0x1008),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_configuration(config_check: ConfigCheck, good_config: VmmConfig, name: str) -> None:
    field, changes = BAD[name]
    assert config_check([replace(good_config, **changes).pack()]) == [field]


@pytest.fixture
def four_vcpus(probe: Probe) -> VmmConfig:
    """Return a configuration of four vCPUs that a VMM accepts; its memory is gone already."""
    plan = probe.plan(vcpu_count=4, bulk_bytes=2 << 20)
    plan.memory.wipe()
    return plan.config


@pytest.mark.parametrize("vcpu", [0, 3])
@pytest.mark.parametrize("name", BAD_VCPU)
def test_bad_vcpu(config_check: ConfigCheck, four_vcpus: VmmConfig, name: str, vcpu: int) -> None:
    field, value = BAD_VCPU[name]
    vcpus = list(four_vcpus.vcpus)
    vcpus[vcpu] = replace(vcpus[vcpu], **{field: value})
    assert config_check([replace(four_vcpus, vcpus=tuple(vcpus)).pack()]) == [field]


def test_good_configuration(config_check: ConfigCheck, good_config: VmmConfig, four_vcpus: VmmConfig) -> None:
    assert config_check([good_config.pack(), four_vcpus.pack()]) == ["ok", "ok"]


def test_one_vcpu_more_than_described(config_check: ConfigCheck, four_vcpus: VmmConfig) -> None:
    """A vCPU whose description is zeros."""
    assert config_check([replace(four_vcpus, vcpu_count=5).pack()]) != ["ok"]


@pytest.mark.parametrize(("offset", "name"), [(0, "magic"), (8, "abi_version")])
def test_bad_head(config_check: ConfigCheck, good_config: VmmConfig, offset: int, name: str) -> None:
    data = bytearray(good_config.pack())
    data[offset] ^= 0x80
    assert config_check([bytes(data)]) == [name]


def test_any_bytes(config_check: ConfigCheck, good_config: VmmConfig) -> None:
    """Mutations of a good configuration: none crashes the validator; it says ok or names a field."""
    source = random.Random(1)  # noqa: S311 - test data
    good = good_config.pack()
    configs = [bytes(CONFIG_BYTES), b"\xff" * CONFIG_BYTES]
    edges = (0, 1, 4095, 4096, 1 << 47, (1 << 47) - 1, 1 << 63, TOP, TOP - 4095)
    for _ in range(20_000):
        data = bytearray(good)
        for _ in range(source.randint(1, 3)):
            at = source.randrange(16, CONFIG_BYTES - 8, 4)
            value = source.choice(edges) if source.random() < 0.5 else source.getrandbits(64)
            struct.pack_into("<Q", data, at, value)
        configs.append(bytes(data))
    answers = config_check(configs)
    assert len(answers) == len(configs)
    assert answers[:2] == ["magic", "magic"]
