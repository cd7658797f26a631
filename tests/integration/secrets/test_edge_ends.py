"""Each way in which secret code can end: a typed error in time, one end for all, a fresh enclave then."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from enclave_caller import Caller

from cafe_lib.errors import CafeError, DeadlineError, ExitedError, FaultError
from cafe_lib.toolchain.build import BuildResult
from hypervisor_agent.abi import CHANNEL_STATUS, Status
from hypervisor_agent.enclave.process import SparePool

Build = Callable[[Path], BuildResult]
Start = Callable[[BuildResult], Caller]

KIT = Path(__file__).parent / "edge_kit"
DEADLINE_SECONDS = 2.0  # of the kit
MARGIN_SECONDS = 8.0
WAYS: dict[str, tuple[int, Status, type[CafeError]]] = {
    "endless loop": (0, Status.DEADLINE, DeadlineError),
    "null pointer": (1, Status.FAULT, FaultError),
    "undefined instruction": (2, Status.FAULT, FaultError),
    "stack exhausted": (3, Status.FAULT, FaultError),
    "heap exhausted": (4, Status.FAULT, FaultError),
    "abort": (5, Status.ABORT, ExitedError),
}


@pytest.fixture
def kit(build: Build, start: Start) -> Caller:
    return start(build(KIT))


@pytest.mark.case("B15", "B16")
@pytest.mark.parametrize("way", WAYS)
def test_every_end_is_a_typed_error_in_time(kit: Caller, start: Start, way: str) -> None:
    how, status, error = WAYS[way]
    begin = time.monotonic()
    assert kit.call("edge_fail", how).status is status
    assert isinstance(kit.outcome().error, error)
    assert time.monotonic() - begin < DEADLINE_SECONDS + MARGIN_SECONDS
    assert start(kit.built).call("edge_echo", 5).value == 5, "a pristine one serves"


@pytest.mark.case("B15", "B16", "B17")
@pytest.mark.parametrize("way", WAYS)
def test_an_end_is_everybodys(kit: Caller, pool: SparePool, way: str) -> None:
    """Another process, whose call runs on another vCPU at the time, gets the one reason, too."""
    how, status, _ = WAYS[way]
    other = Caller(kit.built, kit.enclave)
    with ThreadPoolExecutor(2) as threads:
        calls = []
        if pool.backend.name == "kvm":  # the emulator's one vCPU would not come to the other call
            calls.append(threads.submit(other.call, "edge_fail", 0))
            time.sleep(0.05)
        calls.append(threads.submit(kit.call, "edge_fail", how))
        assert {call.result().status for call in calls} == {status}
    assert kit.outcome().status is status
    for caller in (kit, other):
        assert caller.word(CHANNEL_STATUS) == status, "the channel says why"
    other.channel.close()
