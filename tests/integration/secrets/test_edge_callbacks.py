"""A hostile guest and callbacks of a real enclave: returns nobody asked for, lies, other calls instead."""

from __future__ import annotations

import errno
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from enclave_caller import FRAME, RESULT, STATUS, Caller, Reply

from cafe_lib.errors import LimitError
from cafe_lib.toolchain.build import BuildResult
from hypervisor_agent.abi import CALLBACK, ENTRY_RETURN, MAX_NESTING, Status
from hypervisor_agent.enclave.process import SparePool

Build = Callable[[Path], BuildResult]
Start = Callable[[BuildResult], Caller]

KIT = Path(__file__).parent / "edge_kit"
OUT = 128  # of edge_ask's frame, from the slot's start: `into`, then the result
WHAT = 77


@pytest.fixture
def kit(build: Build, start: Start) -> Caller:
    return start(build(KIT))


def answering(kit: Caller, into: bytes, result: int, returned: int = 0) -> Callable[[int], int]:
    """Play a public function that writes ``into`` and a result, and returns with a word."""

    def serve(slot: int) -> int:
        base = kit.base(slot)
        what, word, n = struct.unpack_from("<IxxxxQI", kit.map, base + FRAME)
        assert (what, word) == (WHAT, 1)
        assert kit.map[base + RESULT : base + RESULT + 56] == bytes(56), "callback number 0, and no more"
        kit.map[base + OUT : base + OUT + len(into)] = into
        struct.pack_into("<q", kit.map, base + OUT + -(-n // 16) * 16, result)
        return returned

    return serve


def call(kit: Caller, n: int = 64, slot: int = 0) -> Reply:
    return kit.call("edge_call_back", WHAT, n, 64, 4, slot=slot)


def begin(kit: Caller, slot: int = 0) -> None:
    """Make a call up to its callback."""
    kit.put(struct.pack("<IIQQ", WHAT, 64, 1, 1), slot)
    assert kit.publish(kit.index("edge_call_back"), slot) == CALLBACK


def test_a_callback_brings_back_what_the_program_says(kit: Caller) -> None:
    data = bytes(range(64))
    for result, error in ((5, 0), (-7, errno.ENOENT), (1 << 62, 0)):
        kit.on_callback = answering(kit, data, result, error << 16)
        reply = call(kit)
        assert (reply.status, reply.value, reply.outs["got"]) == (Status.OK, result, data)
        assert reply.outs["error"] == struct.pack("<i", error)


@pytest.mark.case("B02")
def test_a_return_with_no_callback_pending_is_no_call(kit: Caller) -> None:
    """Before any call, after one, after a callback was answered, and for a callback of another slot."""
    for slot in (0, 1):
        assert kit.publish(ENTRY_RETURN, slot) == Status.ENTRY
    assert kit.call("edge_echo", 4).value == 4
    assert kit.give_back(0) == Status.ENTRY
    kit.on_callback = answering(kit, bytes(64), 9)
    assert call(kit).value == 9
    assert kit.give_back(0) == Status.ENTRY
    begin(kit)
    number = kit.ask(ENTRY_RETURN, 1)
    assert kit.give_back(0) & 0xFFFF == Status.OK
    assert kit.answer(number, 1) == Status.ENTRY
    assert kit.call("edge_echo", 5).value == 5


@pytest.mark.case("B09")
@pytest.mark.parametrize("word", [1, 16, 17, 0x100, 0xFFFF, 0x8000, 0xFFFFFFFF], ids=hex)
def test_a_callback_that_failed_gives_nothing(kit: Caller, word: int) -> None:
    """Any status but success: the secret code gets its error value, and none of the guest's bytes."""
    kit.on_callback = answering(kit, b"x" * 64, 1234, word)
    reply = call(kit)
    assert (reply.status, reply.value, reply.outs["got"]) == (Status.OK, -1, bytes(64))
    assert kit.call("edge_echo", 5).value == 5


@pytest.mark.case("B09")
@pytest.mark.parametrize("error", [1, 4095, 4096, 0xFFFF])
def test_an_errno_that_is_none_becomes_one(kit: Caller, error: int) -> None:
    kit.on_callback = answering(kit, bytes(64), 1, error << 16)
    reply = call(kit)
    assert reply.value == 1
    assert reply.outs["error"] == struct.pack("<i", error if error <= 4095 else errno.EIO)


@pytest.mark.case("B09")
@pytest.mark.parametrize("n", [0, 1, 63, 64])
def test_results_beyond_the_buffer_stay_outside(kit: Caller, n: int) -> None:
    """The guest fills all that follows; the secret code's buffer gets its own length of it."""

    def flood(slot: int) -> int:
        base = kit.base(slot)
        kit.map[base + FRAME : base + kit.built.manifest.slot_bytes] = b"\xee" * (
            kit.built.manifest.slot_bytes - FRAME
        )
        return 0

    kit.on_callback = flood
    reply = call(kit, n)
    assert reply.outs["got"] == b"\xee" * n + bytes(64 - n)
    assert reply.value == int.from_bytes(b"\xee" * 8, "little", signed=True)


@pytest.mark.case("B12", "B14")
def test_numbers_that_jump_during_a_callback(kit: Caller) -> None:
    begin(kit)
    for ahead in (2, 7, 1 << 31, 0xFFFFFFFF, 0xFFFFFF00):
        assert kit.give_back(0, ahead=ahead) == Status.MALFORMED
        assert kit.publish(kit.index("edge_echo"), ahead=ahead) == Status.MALFORMED
    assert kit.give_back(0) == Status.OK
    assert kit.call("edge_echo", 5).value == 5


@pytest.mark.case("B14")
def test_calls_instead_of_a_return(kit: Caller) -> None:
    """A callback may call; unknown entries and lies in such a call end nothing either."""

    def serve(slot: int) -> int:
        assert kit.publish(9999, slot) == Status.ENTRY
        kit.put(struct.pack("<Q", 99), slot)
        assert kit.publish(kit.index("edge_text"), slot) == Status.MALFORMED
        kit.on_callback = None
        assert kit.call("edge_echo", 6, slot=slot).value == 6
        assert kit.call("edge_add", b"abc", 3, 1, 3, slot=slot).outs["out"] == b"bcd"
        return 0

    kit.on_callback = serve
    assert call(kit).status == Status.OK
    assert kit.call("edge_echo", 5).value == 5


@pytest.mark.case("B14")
def test_nesting_is_bounded(kit: Caller) -> None:
    """The call beyond the limit is refused, the ones below return in order."""
    begin(kit)
    for _ in range(MAX_NESTING - 1):
        begin(kit)
    assert kit.publish(kit.index("edge_echo")) == Status.LIMIT
    for _ in range(MAX_NESTING):
        assert kit.give_back(Status.CALLBACK) == Status.OK
    assert kit.give_back(0) == Status.ENTRY
    assert kit.call("edge_echo", 5).value == 5


@pytest.mark.case("B14")
def test_other_slots_while_a_callback_is_out(kit: Caller, pool: SparePool) -> None:
    """Another vCPU serves them; where there is none, they wait until the callback has returned."""
    begin(kit)
    kit.put(struct.pack("<I", 8), 1)
    number = kit.ask(kit.index("edge_echo"), 1)
    if pool.backend.name == "kvm":
        assert kit.answer(number, 1) == Status.OK
    assert kit.give_back(0) == Status.OK
    assert kit.answer(number, 1) == Status.OK
    assert kit.word(kit.base(1) + RESULT) == 8


@pytest.mark.case("B14", "B15")
def test_a_callback_takes_its_time(kit: Caller) -> None:
    """The deadline is for secret code: what the public program takes does not count."""
    begin(kit)
    time.sleep(2.5)
    assert kit.give_back(0) == Status.OK
    assert kit.enclave.wait(0) is None


@pytest.mark.case("B14", "B17")
def test_a_guest_that_ends_in_a_callback_leaves_its_vcpu_and_its_region(kit: Caller) -> None:
    begin(kit)
    kit.enclave.detach(kit.region)
    end = time.monotonic() + 10
    for _ in range(3):
        while True:
            try:
                other = Caller(kit.built, kit.enclave)
                break
            except LimitError:
                assert time.monotonic() < end
        assert other.call("edge_echo", 7).value == 7
        kit.enclave.detach(other.region)
    assert kit.word(kit.base(0) + STATUS) == CALLBACK, "nothing reaches the one that has gone"
