"""The tutorial, run as it is written: every block of shell commands, in order, in one shell."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs" / "tutorial" / "first-secret-function.md"
# What is meant to fail: the secret is not in the program, there is no agent yet, there is no licence yet.
MEANT_TO_FAIL = ["grep -c initech price/price", *(["./price/price initech 1000 250"] * 2)]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cafe-") as directory:
        yield Path(directory)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _script(folder: Path) -> str:
    text = "\n".join(re.findall(r"^```sh\n(.*?)^```$", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL))
    for written, here in (("make setup\n", ""), ("~/first", str(folder)), ("8443", str(_free_port()))):
        assert written in text
        text = text.replace(written, here)
    return "set -u\ntrap 'echo \"FAILED: $BASH_COMMAND\"' ERR\n" + text


def _run(script: str) -> str:
    command = ["bash", "-c", script]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as shell:
        try:
            return shell.communicate(timeout=110)[0]
        finally:
            if shell.poll() is None:  # what it started is in its session's group
                os.killpg(shell.pid, signal.SIGKILL)


@pytest.mark.slow
def test_the_tutorial_works_as_written(folder: Path) -> None:
    output = _run(_script(folder))
    assert re.findall(r"^FAILED: (.*)$", output, re.MULTILINE) == MEANT_TO_FAIL, output
    said = ("no price: the agent cannot be reached", "no price: No valid licence", "1093 cents")
    assert [line for line in output.splitlines() if line.startswith(said)] == [
        "no price: the agent cannot be reached; start it, or set CAFE_SOCKET to its socket",
        "no price: No valid licence with a free seat. Ask the marketplace.",
        "1093 cents",
    ]
