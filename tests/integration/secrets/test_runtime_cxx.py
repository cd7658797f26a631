"""A C++ program inside an enclave: containers, exceptions, virtual functions, streams."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from enclave_caller import Caller

from cafe_lib.errors import ExitedError
from cafe_lib.toolchain.build import BuildResult
from hypervisor_agent.abi import Status

Build = Callable[[Path], BuildResult]
Start = Callable[[BuildResult], Caller]

KIT = Path(__file__).parent / "cxx_kit"


@pytest.fixture
def kit(build: Build, start: Start) -> Caller:
    return start(build(KIT))


def test_vector_and_sort(kit: Caller) -> None:
    numbers = [i * 7919 % 100003 for i in range(3000)]
    reply = kit.call("sort_numbers", struct.pack("<3000i", *numbers), 3000)
    assert struct.unpack("<qi", reply.value[:12]) == (sum(numbers), 3000)
    assert list(struct.unpack("<3000i", reply.outs["values"])) == sorted(numbers, reverse=True)


def test_virtual_functions_and_dynamic_cast(kit: Caller) -> None:
    assert kit.call("shapes", 2.0).value == 4 + 1200


@pytest.mark.parametrize(
    ("key", "text"), [(b"beta", b"beta:2:63.000000"), (b"delta", b"delta:none:63.000000")]
)
def test_maps_and_strings(kit: Caller, key: bytes, text: bytes) -> None:
    reply = kit.call("words", key + b"\0", 100, 100)
    assert (reply.value, reply.outs["text"].rstrip(b"\0")) == (3, text)


def test_exceptions_are_caught_through_many_frames(kit: Caller) -> None:
    for depth in (0, 5, 20):
        reply = kit.call("thrown", depth, 100, 100)
        assert (reply.value, reply.outs["text"].rstrip(b"\0")) == (77, b"failure 77")


def test_the_library_s_own_exceptions(kit: Caller) -> None:
    assert [kit.call("bounds", index).value for index in (3, 10, -1)] == [3, -100, -100]
    assert kit.call("too_much").value == -7


def test_streams(kit: Caller) -> None:
    reply = kit.call("streams", 3.25, 100, 100)
    assert (reply.value, reply.outs["text"].rstrip(b"\0")) == (46, b"x=3.25 ff")


def test_static_and_thread_local_objects_and_locks(kit: Caller) -> None:
    assert [kit.call("statics").value for _ in range(3)] == [702, 803, 904]


def test_an_exception_that_nobody_catches_is_that_call_s_error(kit: Caller) -> None:
    """None crosses, and nothing else is harmed: the enclave goes on."""
    for _ in range(3):
        assert kit.call("uncaught", 1).status == Status.ABORT
        assert kit.call("uncaught", 0).value in (5, 6)
    assert kit.enclave.wait(0) is None


def test_an_exception_where_none_may_be_ends_the_enclave_with_abort(kit: Caller) -> None:
    assert kit.call("forbidden", 0).value in (5, 6)
    assert kit.call("forbidden", 1).status == Status.ABORT
    assert isinstance(kit.outcome().error, ExitedError)
