"""Unchanged callers through stub, channel and secret stub, in C, C++ and ctypes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize("extra", [(), ("-xc++",)], ids=["c", "c++"])
@pytest.mark.case("B04", "B06")
def test_every_way_a_parameter_crosses(plain: Any, agent: Any, run: Any, extra: tuple[str, ...]) -> None:
    done = run(agent, plain.program("caller", *extra))
    assert (done.returncode, done.stdout) == (0, "all good\n"), done.stderr


@pytest.mark.case("B04", "B06", "B10")
def test_the_same_under_sanitizers(sanitized: Any, make_agent: Any, run: Any) -> None:
    fake = make_agent(sanitized.enclave)
    done = run(fake, sanitized.program("caller"))
    assert (done.returncode, done.stdout) == (0, "all good\n"), done.stderr
