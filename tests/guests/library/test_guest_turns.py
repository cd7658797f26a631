"""Many threads of one program: every one of them goes on, and nobody gets another's answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.guests.library.conftest import FakeAgent, Hand, Run

Make = Callable[..., "FakeAgent"]
BULK_BYTES = 4 << 20
KINDS = ["plain", "mixed"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [2, 8, 100])
@pytest.mark.case("B14")
def test_no_thread_starves(hand: Hand, make_agent: Make, run: Run, threads: int, kind: str) -> None:
    """The program ends once each thread has made its calls in every round; "mixed" has long ones, too."""
    fake = make_agent(hand.enclave, bulk_bytes=BULK_BYTES)
    done = run(fake, hand.stress, str(threads), "3", kind, seconds=120)
    assert done.stdout == f"{threads} threads went on, 0 bad\n", done.stderr
    assert len(fake.requests) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [3, 20])
@pytest.mark.case("B14")
def test_threads_do_not_race(racing: Hand, make_agent: Make, run: Run, threads: int, kind: str) -> None:
    fake = make_agent(racing.enclave, bulk_bytes=BULK_BYTES, slots=2)
    done = run(fake, racing.stress, str(threads), "2", kind, seconds=120)
    assert (done.returncode, done.stdout) == (0, f"{threads} threads went on, 0 bad\n"), done.stderr


@pytest.mark.parametrize("experiment", ["blocks", "buffers", "depend", "gone"])
@pytest.mark.case("B14")
def test_shared_memory_and_callbacks_do_not_race(
    racing: Hand, make_agent: Make, run: Run, experiment: str
) -> None:
    done = run(make_agent(racing.enclave, bulk_bytes=BULK_BYTES), racing.probe, experiment, seconds=120)
    assert (done.returncode, done.stdout) == (0, "all good\n"), done.stderr
