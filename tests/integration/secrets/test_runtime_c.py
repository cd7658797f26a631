"""A C program inside an enclave: what works there as everywhere, and how it ends when it misbehaves."""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from enclave_caller import ENTRY, RESULT, Caller

from cafe_lib.errors import DeadlineError, ExitedError, FaultError
from cafe_lib.toolchain.build import BuildResult
from hypervisor_agent.abi import Status

Build = Callable[[Path], BuildResult]
Start = Callable[[BuildResult], Caller]

KIT = Path(__file__).parent / "c_kit"
CLEAN = 0x37F << 32 | 0x1F80 << 16


@pytest.fixture
def kit(build: Build, start: Start) -> Caller:
    return start(build(KIT))


def test_constructors_have_run_in_order(kit: Caller) -> None:
    assert kit.call("kit_constructed").value == 123


def test_thread_local_objects_have_their_values_and_keep_changes(kit: Caller) -> None:
    assert [kit.call("kit_thread_local").value for _ in range(2)] == [42501, 43502]


@pytest.mark.parametrize("descending", [0, 1])
def test_qsort_calls_through_a_table_of_function_pointers(kit: Caller, descending: int) -> None:
    numbers = [math.sin(i) for i in range(300)]
    reply = kit.call("kit_sort", struct.pack("<300d", *numbers), 300, descending)
    assert (reply.status, reply.value) == (Status.OK, 300)
    assert list(struct.unpack("<300d", reply.outs["values"])) == sorted(numbers, reverse=bool(descending))


def test_snprintf(kit: Caller) -> None:
    reply = kit.call("kit_format", math.pi, -42, 200, 200)
    text = b"text|-42|3.14159265358979|0x1.921fb54442d18p+1|ffffffd6|+3.142e+00|ab    |9.42478"
    assert reply.outs["text"].rstrip(b"\0") == text
    assert reply.value == len(text)


def test_wide_characters_need_a_locale(kit: Caller) -> None:
    reply = kit.call("kit_wide", 32, 32)
    assert reply.outs["text"].rstrip(b"\0") == b"wide|c"


def test_floating_point(kit: Caller) -> None:
    x = 2.5
    wanted = [
        *(math.sin(x), math.exp(x), x**1.7, math.gamma(x), math.fmod(x * 1e10, 7), 3.14159e-3, math.sqrt(x)),
    ]
    found = [kit.call("kit_math", x, which).value for which in range(7)]
    assert found == pytest.approx(wanted, rel=1e-14)


def test_jump_table(kit: Caller) -> None:
    found = [kit.call("kit_jump", which, 100).value for which in range(8)]
    assert found == [101, 300, 100 ^ 0x55, 91, 33, -100, 2, 99]


@pytest.mark.parametrize("seed", range(4))
def test_heap_keeps_contents_and_joins_what_is_freed(kit: Caller, seed: int) -> None:
    assert kit.call("kit_heap", 3000, seed).value == 0


@pytest.mark.parametrize("align", [16, 32, 64, 256, 4096, 65536])
@pytest.mark.parametrize("size", [1, 100, 5000])
def test_aligned_memory(kit: Caller, align: int, size: int) -> None:
    assert kit.call("kit_aligned", align, size).value == 0


def test_more_memory_than_there_is_gives_null(kit: Caller) -> None:
    assert kit.call("kit_huge").value == 0


@pytest.mark.case("B18")
def test_random_bytes_are_fresh(kit: Caller, start: Start) -> None:
    first = kit.call("kit_random", 64, 64).outs["bytes"]
    again = kit.call("kit_random", 64, 64).outs["bytes"]
    other = start(kit.built).call("kit_random", 64, 64).outs["bytes"]
    pieces = {data[i : i + 16] for data in (first, again, other) for i in range(0, 64, 16)}
    assert len(pieces) == 12


def test_functions_with_versions_for_several_cpus(kit: Caller) -> None:
    assert kit.call("kit_versions", struct.pack("<100i", *range(100)), 100).value == 328350


@pytest.mark.case("B01")
def test_registers_of_the_last_call_are_gone(kit: Caller) -> None:
    assert kit.call("kit_state").value == CLEAN
    assert kit.call("kit_dirty").status == Status.OK
    assert kit.call("kit_state").value == CLEAN
    kit.call("kit_dirty")
    assert kit.call("kit_flags").value == 0


@pytest.mark.case("B01")
@pytest.mark.parametrize("size", [200, 4000])
def test_results_are_copied_forwards_whatever_the_call_left(kit: Caller, size: int) -> None:
    """Copied backwards, they would be private memory from below the buffer, over the words of the slot."""
    reply = kit.call("kit_backwards", size, size)
    assert (reply.status, reply.value) == (Status.OK, 1)
    assert reply.outs["bytes"] == bytes((i * 7 + 1) & 0xFF for i in range(size))
    assert kit.call("kit_flags").value == 0


@pytest.mark.case("B08", "B13")
def test_entry_rewritten_after_publishing(kit: Caller) -> None:
    """What the enclave ran is one of the numbers the word held, or it ran nothing."""
    index = next(i for i, f in enumerate(kit.built.interface.functions) if f.name == "kit_echo")
    place, stop = (kit.base(0) + ENTRY) // 4, threading.Event()

    def rewrite() -> None:
        while not stop.is_set():
            for entry in (0xFFFFFFFF, index, 1 << 31, index):
                kit.words[place] = entry

    kit.call("kit_echo", 21)
    thread = threading.Thread(target=rewrite)
    thread.start()
    seen = set()
    try:
        for _ in range(3000):
            status = kit.request(index)
            value = int.from_bytes(kit.map[kit.base(0) + RESULT : kit.base(0) + RESULT + 4], "little")
            seen.add((status, value))
    finally:
        stop.set()
        thread.join()
    assert seen <= {(Status.OK, 21), (Status.ENTRY, 0)}
    assert (Status.OK, 21) in seen
    assert kit.call("kit_echo", 5).value == 5


@pytest.mark.case("B13")
def test_unknown_entries_are_refused(kit: Caller) -> None:
    count = len(kit.built.interface.functions)
    for entry in (count, count + 1, 1 << 16, 1 << 31, 0xFFFFFFFF):
        assert kit.request(entry) == Status.ENTRY
    assert kit.call("kit_echo", -5).value == -5


@pytest.mark.case("B12")
def test_request_numbers_that_jump_are_no_calls(kit: Caller) -> None:
    kit.call("kit_thread_local")
    for ahead in (2, 7, 1 << 31, 0xFFFFFFFF):
        assert kit.request(1, ahead=ahead) == Status.MALFORMED
    assert kit.call("kit_thread_local").value == 43502


def test_result_line_is_zero_after_an_error(kit: Caller) -> None:
    kit.call("kit_echo", -1)
    kit.request(9999)
    base = kit.base(0)
    assert bytes(kit.map[base + 8 : base + 64]) == bytes(56)


def test_slots_are_served_apart(kit: Caller) -> None:
    assert [kit.call("kit_echo", 10 + slot, slot=slot).value for slot in (0, 1, 1, 0)] == [10, 11, 11, 10]


def test_a_sleeping_enclave_wakes(kit: Caller) -> None:
    for _ in range(5):
        assert kit.call("kit_echo", 3).value == 3
        while not kit.word(72):  # until it sleeps
            pass


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("kit_abort", ()),
        ("kit_smash", (64,)),
        ("kit_assert", (2,)),
        *(("kit_double_free", (which,)) for which in range(1, 6)),
    ],
    ids=str,
)
def test_giving_up_ends_the_enclave_with_abort(kit: Caller, name: str, arguments: tuple[int, ...]) -> None:
    assert kit.call(name, *arguments).status == Status.ABORT
    assert isinstance(kit.outcome().error, ExitedError)


def test_no_false_alarms(kit: Caller) -> None:
    assert kit.call("kit_smash", 16).value == ord("A")
    assert kit.call("kit_double_free", 0).value == 7
    assert kit.call("kit_assert", 1).value == 1


@pytest.mark.case("B16")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("kit_write", (0,)),
        ("kit_write", (1,)),
        ("kit_write", (2,)),
        ("kit_write", (3,)),
        ("kit_overflow", (1000,)),
    ],
    ids=["null", "code", "constant", "low", "stack"],
)
def test_faults_are_reported_with_the_place(kit: Caller, name: str, arguments: tuple[int, ...]) -> None:
    assert kit.call(name, *arguments).status == Status.FAULT
    outcome = kit.outcome()
    assert isinstance(outcome.error, FaultError)
    header = kit.built.image.header
    assert outcome.image_offset is not None
    assert header.code_offset <= outcome.image_offset < header.rodata_offset


@pytest.mark.case("B19")
def test_a_system_call_is_a_fault(kit: Caller) -> None:
    assert kit.call("kit_system_call").status == Status.FAULT
    assert "getpid" in kit.built.syscalls


@pytest.mark.case("B15")
def test_an_endless_loop_meets_its_deadline(kit: Caller) -> None:
    assert kit.call("kit_forever").status == Status.DEADLINE
    assert isinstance(kit.outcome().error, DeadlineError)
