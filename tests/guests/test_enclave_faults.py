"""What secret code may try, and what comes of it: a typed end, never more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from cafe_lib.errors import DeadlineError, ExitedError, FaultError
from hypervisor_agent import abi
from hypervisor_agent.abi import Status
from hypervisor_agent.enclave.enclave import Enclave
from hypervisor_agent.enclave.process import SparePool

if TYPE_CHECKING:
    from conftest import Launch, Probe

SLOT = abi.CHANNEL_HEADER_BYTES
GP, PF, UD = "#GP (general protection)", "#PF (page fault)", "#UD (undefined instruction)"

# entry, argument, vector (None: any; nested hypervisors differ)
FAULTS = (
    ("load", 0, PF),
    ("store", 8, PF),
    ("jump", 0, PF),
    ("load", 1 << 63, None),
    ("undefined", 0, UD),
    ("divide", 0, "#DE (divide error)"),
    ("overflow_stack", 0, PF),
)


@pytest.mark.case("B16")
@pytest.mark.parametrize(("entry", "argument", "vector"), FAULTS, ids=[f"{f[0]}-{f[1]:#x}" for f in FAULTS])
def test_fault_ends_its_enclave_only(
    launch: Launch, probe: Probe, entry: str, argument: int, vector: str | None
) -> None:
    other, other_caller = launch()
    enclave, caller = launch()
    assert caller.call(entry, argument) is Status.FAULT
    outcome = enclave.wait(5)
    assert isinstance(outcome.error, FaultError)
    assert outcome.status is Status.FAULT
    if vector is not None:
        assert outcome.vector == vector
    if entry != "jump":
        begin = probe.symbols[entry]
        assert begin <= outcome.image_offset < begin + 16, "the place in the image is told"
    assert other_caller.call("echo", 6) == 7, "other enclaves are unharmed"
    assert other.wait(0) is None


@pytest.mark.case("B16", "B20")
@pytest.mark.parametrize("region", ["code", "rodata", "boot", "tables", "handlers", "fault stack"])
def test_write_to_what_is_not_writable(launch: Launch, probe: Probe, region: str) -> None:
    plan = probe.plan()
    address = next(part.address for part in plan.regions if part.name == region)
    enclave, caller = launch(plan)
    assert caller.call("store", address, 1) is Status.FAULT
    assert enclave.wait(5).vector == PF
    assert region in enclave.outcome.error.detail


@pytest.mark.case("B20")
@pytest.mark.parametrize("region", ["rodata", "data", "bss", "stack", "heap", "arena", "monitor", "channel"])
def test_only_code_is_executable(launch: Launch, probe: Probe, region: str) -> None:
    plan = probe.plan()
    address = next(part.address for part in plan.regions if part.name == region)
    enclave, caller = launch(plan)
    assert caller.call("jump", address) is Status.FAULT
    assert enclave.wait(5).vector == PF
    assert f"jump to {region}" in enclave.outcome.error.detail


@pytest.mark.case("B20")
@pytest.mark.parametrize("region", ["tables", "handlers", "fault stack"])
def test_supervisor_pages_cannot_be_read(launch: Launch, probe: Probe, region: str) -> None:
    plan = probe.plan()
    address = next(part.address for part in plan.regions if part.name == region)
    _, caller = launch(plan)
    assert caller.call("load", address) is Status.FAULT


@pytest.mark.case("B20")
@pytest.mark.parametrize("place", ["guard below", "guard above"])
@pytest.mark.parametrize("region", ["code", "stack", "heap", "arena", "channel", "thread"])
def test_guard_pages_around_every_area(launch: Launch, probe: Probe, region: str, place: str) -> None:
    plan = probe.plan()
    part = next(part for part in plan.regions if part.name == region)
    if (region, place) == ("code", "guard above"):
        part = next(part for part in plan.regions if part.name == "bss")
    address = part.address - 8 if place == "guard below" else part.end
    _, caller = launch(plan)
    assert caller.call("load", address) is Status.FAULT


@pytest.mark.case("B16", "B20")
@pytest.mark.parametrize("name", ["stack of vCPU 1", "arena of vCPU 1", "thread of vCPU 1"])
def test_parts_of_another_vcpu_are_named(launch: Launch, probe: Probe, name: str) -> None:
    plan = probe.plan(vcpu_count=2)
    address = next(part.address for part in plan.regions if part.name == name)
    enclave, caller = launch(plan)
    assert caller.call("jump", address) is Status.FAULT
    assert f"jump to {name} + 0x0" in enclave.wait(5).error.detail


@pytest.mark.case("B20")
@pytest.mark.parametrize("name", ["tables of vCPU 1", "fault stack of vCPU 1"])
def test_supervisor_pages_of_another_vcpu_cannot_be_read(launch: Launch, probe: Probe, name: str) -> None:
    plan = probe.plan(vcpu_count=2)
    address = next(part.address for part in plan.regions if part.name == name)
    _, caller = launch(plan)
    assert caller.call("load", address) is Status.FAULT


@pytest.mark.case("B15")
def test_infinite_loop_meets_its_deadline_and_is_replaced(launch: Launch, probe: Probe) -> None:
    enclave, caller = launch(deadline_ms=100)
    assert caller.call("spin") is Status.DEADLINE
    outcome = enclave.wait(5)
    assert isinstance(outcome.error, DeadlineError)
    assert outcome.image_offset == probe.symbols["spin"]
    _, fresh = launch()
    assert fresh.call("echo", 1) == 2


@pytest.mark.case("B15")
def test_deadline_counts_one_call_not_all(launch: Launch) -> None:
    _, caller = launch(deadline_ms=60)
    assert [caller.call("echo", number) for number in range(400)] == list(range(1, 401))


@pytest.mark.case("B15")
def test_deadline_does_not_count_idle_time(launch: Launch) -> None:
    """The first call after a long sleep is not taken for the constructors, or for the call before."""
    _, caller = launch(deadline_ms=100)
    for number in range(3):
        time.sleep(0.25)
        assert caller.call("echo", number) == number + 1


# entry, argument: what must end the enclave
ENDED = (
    ("other_port", 0),
    ("dx_port", 0x80),
    ("dx_port", 0x3F8),
    ("dx_port", 0xCF8),
    ("dx_port", 0x0F),
    ("dx_port", 0xFFFF),
    ("wide_port", 0),
    ("in_port", 0),
    ("set_iopl", 0),
    ("int3_trap", 0),
    ("int_80", 0),
    ("int_fault", 0),
    ("system_call", 0),
    ("system_enter", 0),
    ("halt", 0),
    ("read_msr", 0xC0000080),
    ("read_msr", 0x4B564D01),
    ("write_msr", 0xC0000080),
    ("write_cr3", 0x1000),
    ("write_cr0", 0),
    ("load_gdt", 0),
    ("invalidate", 0),
    ("swap_gs", 0),
    ("ring0_return", 0),
    ("ring0_stack", 0),
    ("ready_twice", 0),
    ("unknown_exit", 0),
    ("load", 0xFEE00000),
    ("load", 0xFEC00000),
    ("load", 0xB8000),
    ("load", 1 << 35),
)


@pytest.mark.case("B19")
@pytest.mark.parametrize(("entry", "argument"), ENDED, ids=[f"{e}-{a:#x}" for e, a in ENDED])
def test_forbidden_instruction_ends_the_enclave(launch: Launch, entry: str, argument: int) -> None:
    enclave, caller = launch()
    assert caller.call(entry, argument) in {Status.FAULT, Status.ABORT}
    assert isinstance(enclave.wait(5).error, FaultError | ExitedError)


@pytest.mark.case("B19")
@pytest.mark.parametrize("entry", ["vm_call", "vmm_call", "cpu_id", "clear_interrupts", "string_port"])
def test_hypervisor_call_does_nothing_or_ends_the_enclave(launch: Launch, entry: str) -> None:
    enclave, caller = launch()
    assert caller.call(entry) in {77, Status.FAULT, Status.ABORT}
    if caller.dead is None:
        assert caller.call("echo", 1) == 2
    else:
        assert enclave.wait(5).error.code in {"fault", "exited"}


FAR = (2, 63, 64, 0xFFFFFFFF, 1 << 32, 7 << 32, 8 << 32, 16 << 32, 0xFFFFFFFF << 32, (1 << 64) - 1)


def test_wake_of_a_slot_that_does_not_exist_does_nothing(launch: Launch) -> None:
    """Slots beyond the last, regions that no process has, regions beyond the last."""
    _, caller = launch()
    for argument in FAR:
        assert caller.call("wake_far", argument) == 77
    assert caller.call("echo", 1) == 2


def test_rest_sleeps_until_a_bell_rings(launch: Launch) -> None:
    """Whatever slot it wakes before; the emulator does not sleep while a call is under way."""
    _, caller = launch(deadline_ms=10_000)
    for argument in FAR:
        number = caller.request("rest", argument)
        while caller.word(SLOT + abi.SLOT_REPLY) != number:
            assert caller.dead is None
            caller.ring()
            time.sleep(0.005)
        assert caller.answer(number) == 77


def test_yield_returns(launch: Launch) -> None:
    _, caller = launch()
    assert caller.call("yield") == 77


def test_giving_up_is_an_abort(launch: Launch) -> None:
    enclave, caller = launch()
    assert caller.call("give_up") is Status.ABORT
    assert "abort" in enclave.wait(5).error.detail


def test_fault_in_the_constructors_is_a_typed_error(probe: Probe, pool: SparePool) -> None:
    image = bytearray(probe.plain)
    at = probe.symbols["before_ready"]
    image[at : at + 2] = b"\x0f\x0b"
    with pytest.raises(FaultError, match=f"{at:#x}"):
        Enclave.start(probe.plan(bytes(image)), pool)


def test_endless_constructors_meet_the_deadline(probe: Probe, pool: SparePool) -> None:
    image = bytearray(probe.plain)
    at = probe.symbols["before_ready"]
    image[at : at + 2] = b"\xeb\xfe"
    with pytest.raises(DeadlineError):
        Enclave.start(probe.plan(bytes(image), deadline_ms=50), pool)
