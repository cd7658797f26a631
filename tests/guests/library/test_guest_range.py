"""The range where the secret code would be: exported starts run, everything else ends the process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.guests.library.conftest import Built, FakeAgent, Run

FLIP_OFFSET = 4096 + 16 * 5


@pytest.mark.case("B13")
def test_only_exported_offsets_run(plain: Built, agent: FakeAgent, run: Run) -> None:
    """Every byte offset but the exported ones is refused; at sample_flip's, sample_flip runs."""
    probe = plain.program("probe")
    for start, end in ((0, 4096), (4096 + 16 * 13, 8192)):
        done = run(agent, probe, "range", str(start), str(end), "x")
        assert done.stdout == f"refused {end - start} ran 0 other 0\n"
    for index in range(13):
        start = 4096 + 16 * index + 1
        done = run(agent, probe, "range", str(start), str(start + 15), "x")
        assert done.stdout == "refused 15 ran 0 other 0\n"
    done = run(agent, probe, "range", str(FLIP_OFFSET), str(FLIP_OFFSET + 1), "x")
    assert done.stdout == "refused 0 ran 1 other 0\n", done.stderr


@pytest.mark.parametrize("access", ["r", "w"])
@pytest.mark.case("B13")
def test_reads_and_writes_are_refused(plain: Built, agent: FakeAgent, run: Run, access: str) -> None:
    done = run(agent, plain.program("probe"), "range", "4090", "4200", access)
    assert done.stdout == "refused 110 ran 0 other 0\n"
    assert "cafe: an access at offset 0xffa of the secret code of sample was refused" in done.stderr
    assert not agent.requests


@pytest.mark.parametrize(("command", "code"), [("null", -11), ("raise", -11)])
def test_other_faults_are_not_ours(plain: Built, run: Run, command: str, code: int) -> None:
    done = run(None, plain.program("probe"), command)
    assert (done.returncode, done.stderr) == (code, "")


def test_an_earlier_handler_still_gets_its_faults(
    plain: Built, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "OWN_HANDLER", "1")
    for command in ("null", "raise"):
        done = run(None, plain.program("probe"), command)
        assert (done.returncode, done.stdout) == (33, "own handler\n")
    refused = run(None, plain.program("probe"), "range", "0", "1", "x")
    assert refused.stdout == "refused 1 ran 0 other 0\n"
