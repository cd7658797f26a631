"""Calls that run at the same time inside one enclave: locks, thread-local objects, one call at a time."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from enclave_caller import Caller, Reply

from cafe_lib.errors import DeadlineError
from cafe_lib.toolchain.build import BuildResult
from hypervisor_agent.abi import Status

Build = Callable[[Path], BuildResult]
Start = Callable[[BuildResult], Caller]

KIT = Path(__file__).parent / "threads_kit"
ROUNDS = 20_000
LOCKS = ("pthread mutex", "recursive", "rwlock", "std::mutex", "std::recursive_mutex")


@pytest.fixture
def kit(build: Build, start: Start) -> Caller:
    return start(build(KIT))


@pytest.fixture
def two(build: Build, start_kvm: Start) -> Caller:
    """Give a kit whose two vCPUs both run."""
    return start_kvm(build(KIT))


def at_once(kit: Caller, *calls: tuple[Any, ...]) -> list[Reply]:
    """Make calls at the same time, each in a slot of its own."""
    with ThreadPoolExecutor(len(calls)) as pool:
        running = [pool.submit(kit.call, *call, slot=slot) for slot, call in enumerate(calls)]
        return [one.result() for one in running]


@pytest.mark.case("B14")
def test_calls_run_at_the_same_time(two: Caller) -> None:
    replies = at_once(two, ("threads_meet", 2), ("threads_meet", 2))
    assert [reply.status for reply in replies] == [Status.OK, Status.OK]


@pytest.mark.case("B14")
@pytest.mark.parametrize("lock", range(len(LOCKS)), ids=LOCKS)
def test_locks_exclude(kit: Caller, lock: int) -> None:
    replies = at_once(kit, *[("threads_count", lock, ROUNDS)] * 3)
    assert [reply.status for reply in replies] == [Status.OK] * 3
    assert max(reply.value for reply in replies) == 3 * ROUNDS


def test_reference_counts_are_atomic(kit: Caller) -> None:
    at_once(kit, *[("threads_count", 5, ROUNDS)] * 3)
    assert kit.call("threads_count", 5, 1).value == 1


def test_thread_local_objects_are_a_vcpus_own(two: Caller) -> None:
    """Each place has the first value plus what was added there, whoever served which call."""
    at_once(two, ("threads_meet", 2), ("threads_meet", 2))
    sums: dict[int, int] = {}
    for _ in range(50):
        for reply in at_once(two, ("threads_local", 1, 8), ("threads_local", 1, 8)):
            (place,) = struct.unpack("<Q", reply.outs["place"])
            sums[place] = max(sums.get(place, 0), reply.value)
    assert sum(value - 100 for value in sums.values()) == 100


@pytest.mark.case("B14")
def test_heap_serves_several_threads(kit: Caller) -> None:
    replies = at_once(kit, *[("threads_heap", 3000, seed) for seed in (1, 2, 3, 4)])
    assert [reply.value for reply in replies] == [0, 0, 0, 0]


def test_once_is_once(kit: Caller) -> None:
    replies = at_once(kit, *[("threads_once",)] * 4)
    assert {reply.value for reply in replies} == {111}


@pytest.mark.case("B14")
def test_serial_function_has_one_call_at_a_time(kit: Caller) -> None:
    replies = at_once(kit, *[("threads_serial", 20_000)] * 4)
    assert [reply.value for reply in replies] == [1, 1, 1, 1]


@pytest.mark.case("B14")
def test_other_functions_have_several(two: Caller) -> None:
    for _ in range(20):
        replies = at_once(two, *[("threads_parallel", 50_000_000)] * 2)
        if max(reply.value for reply in replies) == 2:
            return
    pytest.fail("two calls never met")


def test_one_call_waits_for_another(two: Caller) -> None:
    for value in range(1, 20):
        taken, _ = at_once(two, ("threads_take",), ("threads_put", value))
        assert taken.value == value


@pytest.mark.case("B15")
def test_idle_vcpu_serves_while_the_other_runs_into_its_deadline(two: Caller) -> None:
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(two.call, "threads_spin", slot=3)
        time.sleep(0.2)
        answers = [two.call("threads_echo", value).value for value in range(100)]
        assert hanging.result().status is Status.DEADLINE
    assert answers == list(range(100))
    assert isinstance(two.outcome().error, DeadlineError)
