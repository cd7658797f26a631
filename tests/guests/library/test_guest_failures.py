"""What a program gets when agent, enclave or channel fail or lie: a typed error, in time."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.guests.library.conftest import Built, FakeAgent, Run

Edit = Callable[[bytes], bytes]


def put(offset: int, form: str, value: int) -> Edit:
    def edit(data: bytes) -> bytes:
        piece = struct.pack(form, value)
        return data[:offset] + piece + data[offset + len(piece) :]

    return edit


HEADERS = {
    "magic": put(0, "<Q", 1),
    "abi_version": put(8, "<I", 1),
    "no_slots": put(12, "<I", 0),
    "many_slots": put(12, "<I", 65),
    "other_slots": put(12, "<I", 5),
    "small_slots": put(16, "<Q", 2048),
    "odd_slots": put(16, "<Q", 16385),
    "huge_slots": put(16, "<Q", 1 << 40),
    "wrapping_slots": put(16, "<Q", (1 << 64) - 4096),
    "odd_bulk": put(24, "<Q", 4096),
    "bulk_that_is_not_there": put(24, "<Q", 2 << 20),
    "huge_bulk": put(24, "<Q", 1 << 40),
    "wrapping_bulk": put(24, "<Q", (1 << 64) - (2 << 20)),
    "region": put(32, "<Q", 4096),
}
REPLIES = {
    "magic": put(0, "<I", 7),
    "number": put(8, "<Q", 99),
    "unknown_status": put(4, "<I", 4000),
    "refused_with_descriptor": put(4, "<I", 9),
    "region_zero": put(16, "<Q", 0),
    "region_small": put(16, "<Q", 4096),
    "region_large": put(16, "<Q", 1 << 50),
    "region_wraps": put(16, "<Q", (1 << 64) - 1),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.case("B11", "B12")
def test_channel_with_a_lying_header(
    sanitized: Built, make_agent: Callable[..., FakeAgent], run: Run, name: str
) -> None:
    fake = make_agent(sanitized.enclave, edit_header=HEADERS[name], mode="deaf")
    done = run(fake, sanitized.program("probe"), "flip", "1")
    assert done.stdout.startswith("flip 1 error 1 "), done.stdout + done.stderr


@pytest.mark.parametrize("name", REPLIES)
@pytest.mark.case("B11")
def test_lying_launch_reply(
    sanitized: Built, make_agent: Callable[..., FakeAgent], run: Run, name: str
) -> None:
    fake = make_agent(sanitized.enclave, edit_reply=REPLIES[name])
    done = run(fake, sanitized.program("probe"), "flip", "1")
    assert done.stdout.startswith("flip 1 error 1 "), done.stdout + done.stderr


@pytest.mark.parametrize(
    "settings",
    [{"seals": 0}, {"size_off": 4096}, {"descriptors": 0}, {"descriptors": 2}],
    ids=["unsealed", "other_size", "no_descriptor", "two_descriptors"],
)
@pytest.mark.case("B11")
def test_channel_that_cannot_be_trusted(
    sanitized: Built, make_agent: Callable[..., FakeAgent], run: Run, settings: dict[str, int]
) -> None:
    fake = make_agent(sanitized.enclave, **settings)
    done = run(fake, sanitized.program("probe"), "flip", "1")
    assert done.stdout.split(" ")[:3] == ["flip", "1", "error"]
    assert int(done.stdout.split(" ")[3]) in (1, 8), done.stdout + done.stderr


@pytest.mark.parametrize("descriptors", [0, 2, 5])
@pytest.mark.case("B11", "B17")
def test_descriptors_that_were_not_asked_for_are_not_kept(
    plain: Built, make_agent: Callable[..., FakeAgent], run: Run, descriptors: int
) -> None:
    fake = make_agent(plain.enclave, descriptors=descriptors)
    done = run(fake, plain.program("probe"), "descriptors", "5")
    assert done.stdout.startswith("left 0 error "), done.stdout + done.stderr
    assert len(fake.requests) == 5


@pytest.mark.parametrize("mode", ["huge", "backwards", "status"])
@pytest.mark.case("B11", "B12")
def test_enclave_that_answers_nonsense(
    sanitized: Built, make_agent: Callable[..., FakeAgent], run: Run, mode: str
) -> None:
    fake = make_agent(sanitized.enclave, mode=mode)
    done = run(fake, sanitized.program("probe"), "flip", "2")
    lines = done.stdout.splitlines()
    assert [line.split(" an ")[0] for line in lines] == ["flip 1 error 1"] * 2, done.stderr
    assert len(fake.requests) == 2, "such a channel is not used again"


@pytest.mark.case("B11")
def test_bool_that_is_neither(sanitized: Built, make_agent: Callable[..., FakeAgent], run: Run) -> None:
    done = run(make_agent(sanitized.enclave, mode="bool"), sanitized.program("probe"), "flip", "1")
    assert done.stdout.startswith("flip 1 error 0"), done.stderr


def test_no_agent(plain: Built, run: Run) -> None:
    started = time.monotonic()
    done = run(None, plain.program("probe"), "flip", "2")
    assert done.stdout.count("flip 1 error 8 the agent cannot be reached") == 2
    assert time.monotonic() - started < 1


def test_without_an_error_value_the_process_ends(plain: Built, run: Run) -> None:
    done = run(None, plain.program("probe"), "fatal")
    assert (done.returncode, done.stdout) == (70, "")
    assert "sample_fatal" in done.stderr
    assert "start it, or set CAFE_SOCKET" in done.stderr


def test_the_agents_own_words_reach_the_caller(plain: Built, agent: FakeAgent, run: Run) -> None:
    agent.status, agent.message = 10, b"no free seat\x1b[2J: ask the marketplace"
    done = run(agent, plain.program("probe"), "flip", "2")
    assert done.stdout.splitlines() == ["flip 1 error 10 no free seat?[2J: ask the marketplace"] * 2


@pytest.mark.case("B17")
def test_enclave_ended_in_mid_call(plain: Built, agent: FakeAgent, run: Run) -> None:
    timer = threading.Timer(0.4, lambda: agent.kill_enclaves(5))
    timer.start()
    started = time.monotonic()
    done = run(agent, plain.program("probe"), "sleep", "20000")
    timer.join()
    lines = done.stdout.splitlines()
    assert lines[0].startswith("sleep -1 error 5 the call missed its deadline")
    assert lines[1].startswith("flip 1 error 0"), "the next call starts a fresh enclave"
    assert time.monotonic() - started < 1.4 + 0.5
    assert [request[2] for request in agent.requests] == [1, 2]


@pytest.mark.case("B17")
def test_agent_killed_in_mid_call(plain: Built, agent: FakeAgent, run: Run) -> None:
    timer = threading.Timer(0.4, agent.stop)
    timer.start()
    started = time.monotonic()
    done = run(agent, plain.program("probe"), "sleep", "20000")
    timer.join()
    assert done.stdout.splitlines()[0].startswith("sleep -1 error 8 the agent cannot be reached")
    assert done.stdout.splitlines()[1].startswith("flip 1 error 8")
    assert time.monotonic() - started < 1.4 + 0.5


@pytest.mark.case("B17")
def test_the_agents_successor_is_found(
    plain: Built, agent: FakeAgent, make_agent: Callable[..., FakeAgent], run: Run
) -> None:
    def replace() -> None:
        agent.stop()
        make_agent(plain.enclave, agent.path)

    timer = threading.Timer(0.3, replace)
    timer.start()
    done = run(agent, plain.program("probe"), "flip", "6", "150")
    timer.join()
    codes = [int(line.split()[3]) for line in done.stdout.splitlines()]
    assert codes[0] == 0
    assert codes[-1] == 0
    assert set(codes) <= {0, 8}, done.stdout
