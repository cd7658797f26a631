"""The call path alone, both sides written by hand: callbacks, large buffers, hostile answers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.guests.library.conftest import FakeAgent, Hand, Run

Make = Callable[..., "FakeAgent"]
BULK_BYTES = 4 << 20
FAULT = 4
EXPERIMENTS = [
    pytest.param(name, marks=pytest.mark.case(*cases))
    for name, cases in {
        "errors": ("B11",),
        "callbacks": ("B09", "B14"),
        "buffers": ("B04", "B07"),
        "blocks": ("B07",),
        "gone": ("B14", "B17"),
        "forked": ("B14",),
        "depend": ("B14",),
        "interrupted": ("B14",),
    }.items()
]
FORGERIES = {
    "callback_beyond_the_last": 0x2_0000_0100,
    "callback_negative": 0xFFFF_FFFF_0000_0100,
    "callback_huge": 0x7FFF_FFFF_0000_0100,
    "callback_with_errno": 0x0011_0100,
    "status_next": 17,
    "status_huge": 0xFFFF,
    "status_above_callback": 0x101,
    "errno_too_large": 4096 << 16,
}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_call_keeps_its_promises(hand: Hand, make_agent: Make, run: Run, experiment: str) -> None:
    fake = make_agent(hand.enclave, bulk_bytes=BULK_BYTES)
    done = run(fake, hand.probe, experiment)
    assert (done.returncode, done.stdout) == (0, "all good\n"), done.stderr


@pytest.mark.parametrize("name", FORGERIES)
@pytest.mark.case("B02", "B09", "B11", "B12")
def test_forged_answers_end_the_channel(hand: Hand, make_agent: Make, run: Run, name: str) -> None:
    """A typed error for this call, and the next one finds a fresh enclave."""
    fake = make_agent(hand.enclave)
    done = run(fake, hand.probe, "forge", str(FORGERIES[name]))
    assert (done.returncode, done.stdout.split(" an ")[0]) == (0, "forged error 1"), done.stderr
    assert len(fake.requests) == 2


@pytest.mark.parametrize("mode", ["early", "late", "double", "jump", "wrap"])
@pytest.mark.case("B11", "B12")
def test_replies_out_of_order(hand: Hand, make_agent: Make, run: Run, mode: str) -> None:
    """A reply with another number is refused; one that comes twice does no harm."""
    fake = make_agent(hand.enclave, mode=mode)
    done = run(fake, hand.probe, "forge", "0")
    wanted = "forged error 1 an" if mode != "double" else "forged error 0 \n"
    assert done.stdout.startswith(wanted), done.stdout + done.stderr


@pytest.mark.parametrize("again", [True, False], ids=["same_region", "other_region"])
@pytest.mark.case("B14", "B17")
def test_an_enclave_that_ends_while_a_callback_is_out(hand: Hand, make_agent: Make, *, again: bool) -> None:
    """Another thread's call gets a fresh enclave at once; shared memory stays; the call itself fails."""
    fake = make_agent(hand.enclave, bulk_bytes=BULK_BYTES, again=again)
    with subprocess.Popen(
        [hand.probe, "survivor"],
        env=os.environ | {"CAFE_SOCKET": str(fake.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "kill\n"
        fake.kill_enclaves(FAULT)
        out, errors = program.communicate("\n", timeout=60)
    assert (program.returncode, out) == (0, "all good\n"), errors
    assert len(fake.requests) == 2
