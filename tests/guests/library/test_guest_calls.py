"""Unchanged callers through stub, channel and secret stub, in C, C++ and ctypes."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.guests.library.conftest import Built, FakeAgent, Run

CTYPES = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.sample_sum.restype = ctypes.c_int64
values = (ctypes.c_uint32 * 3)(1, 2, 3)
print(library.sample_sum(values, ctypes.c_size_t(3)), library.cafe_last_error())
library.cafe_error_message.restype = ctypes.c_char_p
print(library.sample_sum(values, ctypes.c_size_t(2**62)), library.cafe_error_message().decode()[:17])
library.cafe_secret_size.restype = ctypes.c_size_t
print(library.cafe_secret_size(b"sample"))
"""


@pytest.mark.parametrize("extra", [(), ("-xc++",)], ids=["c", "c++"])
@pytest.mark.case("B04", "B06")
def test_every_way_a_parameter_crosses(
    plain: Built, agent: FakeAgent, run: Run, extra: tuple[str, ...]
) -> None:
    done = run(agent, plain.program("caller", *extra))
    assert (done.returncode, done.stdout) == (0, "all good\n"), done.stderr


@pytest.mark.case("B04", "B06", "B10")
def test_the_same_under_sanitizers(sanitized: Built, make_agent: Callable[..., FakeAgent], run: Run) -> None:
    done = run(make_agent(sanitized.enclave), sanitized.program("caller"))
    assert (done.returncode, done.stdout) == (0, "all good\n"), done.stderr


def test_python_calls_through_ctypes(plain: Built, agent: FakeAgent, run: Run) -> None:
    done = run(agent, sys.executable, "-c", CTYPES, plain.shared)
    assert done.stdout.splitlines() == ["6 0", "-1 the arguments do ", "8192"], done.stderr


def test_shared_library_shows_only_the_interface(plain: Built) -> None:
    command = ["nm", "-D", "--defined-only", plain.shared]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = {line.split()[-1] for line in listed.splitlines()}
    public = {
        "cafe_last_error",
        "cafe_error_message",
        "cafe_secret_base",
        "cafe_secret_size",
        "cafe_secret_address",
        "cafe_alloc",
        "cafe_free",
        "cafe_set_callback",
    }
    assert {name for name in names if not name.startswith("sample_")} == public
    assert len(names - public) == 13


@pytest.mark.case("B14")
def test_more_threads_than_slots(plain: Built, agent: FakeAgent, run: Run) -> None:
    agent.slots = 2
    done = run(agent, plain.program("probe"), "threads", "12", "300")
    assert done.stdout.startswith("bad 0 error 0"), done.stderr
    assert len(agent.requests) == 1, "all threads share one launch"


@pytest.mark.case("B14")
def test_threads_under_sanitizers(sanitized: Built, make_agent: Callable[..., FakeAgent], run: Run) -> None:
    fake = make_agent(sanitized.enclave, slots=3)
    done = run(fake, sanitized.program("probe"), "threads", "6", "50")
    assert done.stdout.startswith("bad 0 error 0"), done.stderr


def test_forked_child_gets_its_own_enclave(plain: Built, agent: FakeAgent, run: Run) -> None:
    done = run(agent, plain.program("probe"), "fork")
    lines = done.stdout.splitlines()
    assert [line.split(" error")[0] for line in lines] == ["parent 1", "child 1", "parent 1"], done.stderr
    assert all(" error 0" in line for line in lines)
    assert len(agent.requests) == 2, "the child's launch, and no second one of the parent's"


def test_launch_request_names_release_and_interface(plain: Built, agent: FakeAgent, run: Run) -> None:
    run(agent, plain.program("probe"), "flip", "1")
    magic, version, number, binary_id, digest = agent.requests[0]
    assert (magic, version, number, binary_id) == (0x314C4743, 2, 1, b"\7" * 32)
    assert digest not in (b"", b"\0" * 32)
