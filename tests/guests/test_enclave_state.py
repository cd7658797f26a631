"""How secret code finds the CPU and its memory at entry, and that no two enclaves are alike."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hypervisor_agent import abi

if TYPE_CHECKING:
    from conftest import Connect, Launch, Probe

    from hypervisor_agent.enclave.process import SparePool

GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)))
FLAGS, MXCSR, FCW, RETURN, THREAD, CS, SS, FXSAVE = 128, 136, 144, 152, 160, 168, 176, 256
RESERVED_FLAGS, INTERRUPTS, IOPL = 2, 0x200, 0x3000
UNWRITTEN = 0x5A5A5A5A5A5A5A5A


@pytest.mark.case("B01")
def test_registers_at_entry(launch: Launch, probe: Probe) -> None:
    plan = probe.plan()
    _, caller = launch(plan)
    registers = {name: caller.call("state", 8 * index) for index, name in enumerate(GENERAL)}
    stack = next(region for region in plan.regions if region.name == "stack")
    assert registers.pop("rdi") == plan.config.rdi
    assert registers["rsi"] == 0, "the vCPU's number"
    assert registers.pop("rsp") == stack.end - 8
    assert set(registers.values()) == {0}
    assert caller.call("state", RETURN) == 0
    # IF is set by some nested KVMs, IOPL by the emulator, which decides about ports in a hook.
    assert caller.call("state", FLAGS) & ~INTERRUPTS & ~IOPL == RESERVED_FLAGS, "neither DF nor AC nor TF"


@pytest.mark.case("B01")
def test_floating_point_at_entry(launch: Launch) -> None:
    _, caller = launch()
    assert caller.call("state", MXCSR) & 0xFFFFFFFF == 0x1F80
    assert caller.call("state", FCW) & 0xFFFF == 0x37F
    fxsave = [caller.call("state", FXSAVE + offset) for offset in range(0, 416, 8)]
    assert fxsave[0] & 0xFFFFFFFF == 0x37F, "no exceptions, all registers empty"
    assert set(fxsave[4:20:2]) | {word & 0xFFFF for word in fxsave[5:20:2]} == {0}, (
        "x87: ten bytes of sixteen"
    )
    assert set(fxsave[20:]) == {0}, "XMM"


@pytest.mark.case("B01")
def test_thread_pointer(launch: Launch, probe: Probe) -> None:
    plan = probe.plan()
    _, caller = launch(plan)
    assert caller.call("state", THREAD) == 0, "the runtime fills the thread block"
    caller.call("store", plan.config.vcpus[0].fs_base + 40, 0x1234)
    assert caller.call("fs_word", 40) == 0x1234


@pytest.mark.case("B01")
def test_ring_3(launch: Launch) -> None:
    _, caller = launch()
    assert caller.call("state", CS) & 0xFFFF == 0x33
    assert caller.call("state", SS) & 0xFFFF == 0x2B


def test_image_is_relocated_and_bss_is_zero(launch: Launch, probe: Probe) -> None:
    plan = probe.plan()
    _, caller = launch(plan)
    assert caller.call("bss_word") == 0
    assert caller.call("load", plan.image_base + probe.symbols["saved"] + 1016) == UNWRITTEN
    odd = caller.call("load", plan.image_base + probe.symbols["odd_at"])
    assert odd == plan.image_base + probe.symbols["echo"], "an unaligned relocation"


@pytest.mark.case("B18")
def test_two_enclaves_share_no_random_state(launch: Launch, probe: Probe) -> None:
    plans = [probe.plan(), probe.plan()]
    seeds = []
    for plan in plans:
        _, caller = launch(plan)
        seeds.append([caller.call("seed", index) for index in range(4)])
    assert not set(seeds[0]) & set(seeds[1])
    assert 0 not in seeds[0] + seeds[1]
    first, second = ({region.name: region.address for region in plan.regions} for plan in plans)
    assert all(first[name] != second[name] for name in first)


@pytest.mark.case("B18")
def test_random_instruction_differs(launch: Launch) -> None:
    values = {launch()[1].call("random") for _ in range(2)}
    assert len(values) == 2


def test_whole_stack_and_heap_are_usable(launch: Launch, probe: Probe) -> None:
    plan = probe.plan(heap_bytes=(4 << 20) + 8192, stack_bytes=3 << 20)
    _, caller = launch(plan)
    for name in ("stack", "heap", "arena", "thread", "bss", "monitor"):
        region = next(region for region in plan.regions if region.name == name)
        for address in (region.address + 128, region.end - 8, region.address + region.size // 2):
            if name != "stack" or address < region.end - 8192:
                caller.call("store", address, 0x1234)
                assert caller.call("load", address) == 0x1234


@pytest.mark.case("B01", "B18")
@pytest.mark.parametrize("vcpus", [2, 16])
def test_other_vcpus_at_entry(kvm_launch: Launch, probe: Probe, vcpus: int) -> None:
    """Each has its number, its stack and its thread pointer; all else is as on the first."""
    plan = probe.plan(vcpu_count=vcpus)
    _, caller = kvm_launch(plan)
    for number in range(1, vcpus):
        area = plan.image_base + probe.symbols["in_bss"] + 1024 * number
        until = time.monotonic() + 10
        while not caller.call("load", area + 8 * GENERAL.index("rdi")):
            assert time.monotonic() < until, "it was never entered"
        registers = {name: caller.call("load", area + 8 * index) for index, name in enumerate(GENERAL)}
        assert registers.pop("rdi") == plan.config.rdi
        assert registers.pop("rsi") == number
        assert registers.pop("rsp") == plan.config.vcpus[number].rsp
        assert set(registers.values()) == {0}
        assert caller.call("load", area + FLAGS) & ~INTERRUPTS & ~IOPL == RESERVED_FLAGS
        assert caller.call("load", area + MXCSR) & 0xFFFFFFFF == 0x1F80


def test_calls_of_two_processes_run_side_by_side(kvm_launch: Launch, connect: Connect) -> None:
    """A call that never ends takes one vCPU; the other serves the other process meanwhile."""
    enclave, first = kvm_launch(vcpu_count=2, deadline_ms=5000)
    second = connect(enclave)
    first.request("spin")
    for number in range(50):
        assert second.call("echo", number, seconds=2) == number + 1
    assert second.call("vcpu") in {0, 1}
    assert enclave.wait(0) is None


@pytest.mark.parametrize("vcpus", [2, 16])
def test_first_vcpu_serves_all_where_there_is_no_other(launch: Launch, pool: SparePool, vcpus: int) -> None:
    _, caller = launch(vcpu_count=vcpus)
    assert [caller.call("echo", number) for number in range(20)] == list(range(1, 21))
    if pool.backend.name == "emulator":
        assert caller.call("vcpu") == 0


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_idle_enclave_uses_no_cpu(launch: Launch) -> None:
    enclave, caller = launch(deadline_ms=100)
    caller.call("echo", 1)
    time.sleep(0.3)
    before = _cpu_seconds(enclave.pid)
    time.sleep(1.0)
    assert _cpu_seconds(enclave.pid) - before <= 0.01
    assert caller.word(abi.CHANNEL_SLEEPING) == abi.Sleeping.ALL
    assert caller.call("echo", 2) == 3, "the bell wakes it"
