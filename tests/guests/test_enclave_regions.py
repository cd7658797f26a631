"""Several guest processes on one enclave: who gets a region, who sees whose bytes, what outlives it."""

from __future__ import annotations

import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cafe_lib.errors import EnclaveError, ExitedError, LimitError
from hypervisor_agent import abi
from hypervisor_agent.abi import ChannelState, Status
from hypervisor_agent.enclave.channel import Channel
from hypervisor_agent.enclave.enclave import Enclave
from hypervisor_agent.loader.layout import REGIONS
from hypervisor_agent.plan import EnclavePlan

if TYPE_CHECKING:
    from conftest import Caller, Connect, Launch, Probe

SECRET = 0x5EC2E7_5EC2E7
HUGE = 2 << 20
SLOT = abi.CHANNEL_HEADER_BYTES
FRAME = SLOT + abi.SLOT_FRAME


def _soon(work: Callable[[], Caller]) -> Caller:
    """Attach as soon as the enclave has settled: it may still be about to see that a region was detached."""
    until = time.monotonic() + 10
    while True:
        try:
            return work()
        except LimitError:
            assert time.monotonic() < until, "the enclave never settles"
            time.sleep(0.01)


def _address(plan: EnclavePlan, region: int) -> int:
    name = f"channel region {region}" if region else "channel"
    return next(part.address for part in plan.regions if part.name == name)


def test_ready_enclave_needs_no_channel(launch: Launch) -> None:
    enclave, caller = launch()
    assert caller.region == 0
    assert caller.word(abi.CHANNEL_STATE) == ChannelState.READY
    enclave.detach(0)
    assert enclave.wait(0.1) is None, "it runs on without one"


@pytest.mark.case("B14")
def test_every_region_is_served(launch: Launch, connect: Connect) -> None:
    enclave, first = launch()
    callers = [first, *(connect(enclave) for _ in range(REGIONS - 1))]
    assert [caller.region for caller in callers] == list(range(REGIONS))
    for number in range(3):
        requests = [caller.request("echo", 100 * number + caller.region) for caller in callers]
        answers = [caller.answer(request) for caller, request in zip(callers, requests, strict=True)]
        assert answers == [100 * number + region + 1 for region in range(REGIONS)]


def test_bell_of_any_region_wakes_a_sleeping_enclave(launch: Launch, connect: Connect) -> None:
    enclave, first = launch()
    callers = [first, *(connect(enclave) for _ in range(3))]
    for caller in (callers[2], callers[0], callers[3], callers[1]):
        time.sleep(0.05)
        assert {other.word(abi.CHANNEL_SLEEPING) for other in callers} == {abi.Sleeping.ALL}
        assert caller.call("echo", 1) == 2


@pytest.mark.case("B17")
def test_one_region_too_many_is_refused(launch: Launch, connect: Connect) -> None:
    enclave, first = launch()
    callers = [first, *(connect(enclave) for _ in range(REGIONS - 1))]
    for _ in range(2):
        with pytest.raises(LimitError):
            connect(enclave)
    assert all(caller.call("echo", 1) == 2 for caller in callers), "the others go on"
    enclave.detach(3)
    assert _soon(lambda: connect(enclave)).region == 3
    with pytest.raises(LimitError):
        connect(enclave)


def test_refused_channel_is_left_as_it_was(launch: Launch, connect: Connect) -> None:
    enclave, _ = launch()
    for _ in range(REGIONS - 1):
        connect(enclave)
    channel = Channel(*enclave.channel_size)
    with pytest.raises(LimitError):
        enclave.attach(channel)
    enclave.destroy()
    state = os.pread(channel.fd, 4, abi.CHANNEL_STATE)
    channel.close()
    assert state == struct.pack("<I", ChannelState.STARTING)


@pytest.mark.case("B17")
def test_attaching_and_detaching_goes_on_for_ever(launch: Launch, connect: Connect) -> None:
    enclave, first = launch()
    for number in range(40):
        caller = _soon(lambda: connect(enclave))
        assert caller.call("echo", number) == number + 1
        enclave.detach(caller.region)
    assert first.call("echo", 1) == 2


@pytest.mark.case("B03", "B17")
def test_late_answer_never_reaches_the_next_process(launch: Launch, connect: Connect) -> None:
    """A process ends while its call is under way; the answer is written when others have come."""
    enclave, first = launch(deadline_ms=10_000)
    first.write(FRAME + 64, b"what only the first process may see")
    first.request("outlive", 1, SECRET)
    time.sleep(0.05)
    enclave.detach(0)
    second = connect(enclave)
    assert second.region == 1, "a call is still left in region 0"
    assert second.call("echo", 1) == 2
    third = _soon(lambda: connect(enclave))
    assert third.region in {0, 2}
    while third.region != 0:
        enclave.detach(third.region)
        third = _soon(lambda: connect(enclave))
    for caller in (second, third):
        rest = caller.read(abi.CHANNEL_HEADER_BYTES, caller.channel.size - abi.CHANNEL_HEADER_BYTES)
        assert struct.pack("<Q", SECRET) not in rest
        assert b"only the first" not in rest
    assert (third.word(SLOT + abi.SLOT_REPLY), third.word(SLOT + abi.SLOT_REQUEST)) == (0, 0)
    assert third.call("echo", 4) == 5
    assert first.word(SLOT + abi.SLOT_REPLY) == 0, "nor the first"


@pytest.mark.case("B03", "B04")
def test_detached_region_is_out_of_the_enclaves_reach(launch: Launch, connect: Connect, probe: Probe) -> None:
    plan = probe.plan()
    enclave, first = launch(plan)
    second, place = connect(enclave), _address(plan, 0) + FRAME + 64
    first.put(FRAME + 64, 0x1234)
    assert second.call("load", place) == 0x1234
    enclave.detach(0)
    until = time.monotonic() + 10
    while second.call("load", place):
        assert time.monotonic() < until, "the region is still there"
    second.call("store", place, SECRET)
    while (third := connect(enclave)).region != 0:  # until the enclave has said that no call is left there
        enclave.detach(third.region)
        assert time.monotonic() < until, "the window was never free again"
    assert second.call("load", place) == 0, "the next process finds what it brought"
    assert first.read(FRAME + 64, 8) == struct.pack("<Q", 0x1234)


@pytest.mark.case("B20")
@pytest.mark.parametrize("region", [1, REGIONS - 1])
def test_every_region_has_guards_and_is_not_executable(
    launch: Launch, connect: Connect, probe: Probe, region: int
) -> None:
    for entry, offset in (("jump", 0), ("load", -8), ("load", None)):
        plan = probe.plan()
        enclave, caller = launch(plan)
        for _ in range(region):
            connect(enclave)
        end = plan.config.region_bytes if offset is None else offset
        assert caller.call(entry, _address(plan, region) + end) is Status.FAULT
        assert f"channel region {region}" in enclave.wait(5).error.detail


@pytest.mark.case("B12", "B17")
def test_flood_of_one_region_leaves_the_others_served(launch: Launch, connect: Connect) -> None:
    """Nonsense in every word a guest can reach, while its region comes and goes."""
    enclave, good = launch()
    value = 1
    for _ in range(5):
        bad = _soon(lambda: connect(enclave))
        until = time.monotonic() + 0.1
        while time.monotonic() < until:
            value = (value * 1664525 + 1013904223) & 0xFFFFFFFF
            for offset in (64, 68, 72, 128, SLOT, SLOT + 4, SLOT + 64, SLOT + 72, SLOT + 65536 + 64):
                bad.put(offset, value)
            bad.put(SLOT + abi.SLOT_ENTRY, 0)  # the probe trusts its entry index; the runtime does not
            bad.ring()
        assert good.call("echo", 1) == 2
        enclave.detach(bad.region)
    assert enclave.wait(0) is None


@pytest.mark.case("B17")
def test_channel_outlives_its_enclave(launch: Launch, probe: Probe) -> None:
    """What the guest has put into the bulk area is there for the fresh enclave; no old request runs again."""
    plan = probe.plan(bulk_bytes=HUGE)
    enclave, caller = launch(plan)
    caller.write(HUGE + 512, b"kept in the bulk area")
    assert caller.call("echo", 7) == 8
    assert caller.call("undefined") is Status.FAULT
    enclave.destroy()
    fresh_plan = probe.plan(bulk_bytes=HUGE)
    fresh, _ = launch(fresh_plan)
    region = fresh.attach(caller.channel)
    assert caller.word(abi.CHANNEL_STATE) == ChannelState.READY
    assert caller.word(abi.CHANNEL_STATUS) == Status.OK
    reply = caller.word(SLOT + abi.SLOT_REPLY)
    assert reply == caller.word(SLOT + abi.SLOT_REQUEST), "nothing is asked"
    place = _address(fresh_plan, region) + HUGE + 512
    assert caller.call("load", place) == int.from_bytes(b"kept in ", "little")
    assert caller.read(HUGE + 512, 21) == b"kept in the bulk area"
    fresh.detach(region)


@pytest.mark.case("B17")
def test_end_of_the_old_enclave_is_nothing_to_the_fresh_one(launch: Launch) -> None:
    enclave, caller = launch()
    assert caller.call("undefined") is Status.FAULT
    enclave.wait(5)
    fresh, _ = launch()
    fresh.attach(caller.channel)
    enclave.destroy(Status.REVOKED)
    assert caller.dead is None
    assert caller.call("echo", 1) == 2


@pytest.mark.case("B16", "B17")
@pytest.mark.parametrize("end", ["fault", "kill", "destroy"])
def test_every_attached_channel_is_told_of_the_end(launch: Launch, connect: Connect, end: str) -> None:
    enclave, first = launch()
    callers = [first, connect(enclave), connect(enclave)]
    gone = connect(enclave)
    enclave.detach(gone.region)
    callers.append(connect(enclave))  # commands are obeyed in order: the other one is detached by now
    if end == "fault":
        first.request("undefined")
    elif end == "kill":
        os.kill(enclave.pid, signal.SIGKILL)
    else:
        enclave.destroy(Status.REVOKED)
    if end != "destroy":
        enclave.wait(5)
    expected = {"fault": Status.FAULT, "kill": Status.EXITED, "destroy": Status.REVOKED}[end]
    assert {caller.dead for caller in callers} == {expected}
    assert gone.dead is None, "it was nobody's business any more"


@pytest.mark.case("B17")
def test_attaching_to_an_enclave_that_has_died_is_a_typed_error(launch: Launch, connect: Connect) -> None:
    """Its end comes in place of an answer, and is not lost."""
    enclave, _ = launch()
    os.kill(enclave.pid, signal.SIGKILL)
    with pytest.raises(EnclaveError):
        connect(enclave)
    assert enclave.outcome is not None
    assert isinstance(enclave.wait(0).error, ExitedError)
    with pytest.raises(EnclaveError):
        connect(enclave)
    enclave.detach(0)
    enclave.destroy()
    with pytest.raises(EnclaveError):
        connect(enclave)


def test_attaching_while_the_enclave_faults(launch: Launch, connect: Connect) -> None:
    """Whichever comes first: the channel is told, and the outcome is the fault."""
    for delay in (0, 0.001, 0.003):
        enclave, caller = launch()
        caller.request("undefined")
        time.sleep(delay)
        try:
            other = connect(enclave)
        except EnclaveError:
            other = None
        assert enclave.wait(5).status is Status.FAULT
        assert other is None or other.dead is Status.FAULT


def test_threads_attach_while_another_waits(launch: Launch, connect: Connect) -> None:
    """Whoever listens gets everybody's events; nobody's are lost."""
    enclave, caller = launch()
    ends: list[object] = []
    waiting = [threading.Thread(target=lambda: ends.append(enclave.wait())) for _ in range(2)]
    found: list[int] = []
    attaching = [threading.Thread(target=lambda: found.append(connect(enclave).region)) for _ in range(5)]
    for thread in (*waiting, *attaching):
        thread.start()
    for thread in attaching:
        thread.join(10)
    assert sorted(found) == [1, 2, 3, 4, 5]
    caller.request("undefined")
    for thread in waiting:
        thread.join(10)
    assert ends == [enclave.outcome] * 2
    assert enclave.outcome.status is Status.FAULT


def test_destroying_lets_a_waiting_thread_go(launch: Launch) -> None:
    enclave, _ = launch()
    thread = threading.Thread(target=enclave.wait)
    thread.start()
    time.sleep(0.05)
    enclave.destroy()
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def stopped(launch: Launch) -> Iterator[Enclave]:
    """Stop an enclave's process; it answers nothing."""
    enclave, _ = launch()
    os.kill(enclave.pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{enclave.pid}/task")
    while any((task / "stat").read_text().rsplit(")", 1)[1].split()[0] != "T" for task in tasks.iterdir()):
        time.sleep(0.001)
    yield enclave
    enclave.destroy()


def test_vmm_that_does_not_answer_is_ended(
    stopped: Enclave, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypervisor_agent.enclave.enclave._ANSWER_SECONDS", 0.1)
    with pytest.raises(ExitedError):
        connect(stopped)
    assert stopped.outcome is not None
    assert stopped.pid == 0
