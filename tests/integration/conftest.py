"""Real processes for the integration tests: each ends with its fixture, by its handle."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class SoftwareTpm:
    """A swtpm process and the TCTI string that reaches it."""

    tcti: str
    process: subprocess.Popen[bytes]


def wait_for_socket(path: Path, process: subprocess.Popen[bytes], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, f"{process.args} ended with {process.returncode}"
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                time.sleep(0.01)
            else:
                return
    raise AssertionError(f"{path} did not appear")


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def start_swtpm(directory: Path) -> SoftwareTpm:
    """Start swtpm on ``directory``'s state; the TCTI library wants the control socket beside the other."""
    (directory / "state").mkdir(exist_ok=True)
    address = directory / "tpm"
    command = [
        "swtpm", "socket", "--tpm2",
        "--tpmstate", f"dir={directory / 'state'}",
        "--server", f"type=unixio,path={address}",
        "--ctrl", f"type=unixio,path={address}.ctrl",
        "--flags", "startup-clear",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_socket(address, process)
    except BaseException:
        end(process)
        raise
    return SoftwareTpm(f"swtpm:path={address}", process)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Give a directory with a path short enough for UNIX sockets."""
    with tempfile.TemporaryDirectory(prefix="cafe-") as directory:
        yield Path(directory)


@pytest.fixture
def swtpm(short_path: Path) -> Iterator[SoftwareTpm]:
    tpm = start_swtpm(short_path)
    yield tpm
    end(tpm.process)


@pytest.fixture
def restarted_swtpm(short_path: Path, swtpm: SoftwareTpm) -> Iterator[SoftwareTpm]:
    """Give the same TPM after a reset: same seeds, no loaded keys, PCRs as at power-on."""
    end(swtpm.process)
    tpm = start_swtpm(short_path)
    yield tpm
    end(tpm.process)
