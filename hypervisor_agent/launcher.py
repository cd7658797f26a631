"""The local measured launcher: it hashes the agent's files into a PCR, then becomes the agent.

What a quote shows must be measured by what runs BEFORE the agent. On a production host that is IMA or a
dm-verity image named in PCR 11; this launcher stands in that place on a machine that has neither. It measures
the two packages the agent consists of, the VMM included, and the interpreter; not the distribution's files.

The PCR is 14: not resettable, and unused on a host that boots without shim's MOK list (shim extends it
otherwise; choose another one there).
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import cafe_lib
import hypervisor_agent
from cafe_lib.errors import HostError
from hypervisor_agent.tpm.port import Tpm

MEASURED_PCR = 14
SHA256_BANK = 0x000B
_LABEL = b"cafe agent v1"
_SKIPPED = {".pyc", ".o", ".d"}


def measured_files() -> dict[str, Path]:
    """Return every measured file under the name it is measured by."""
    files = {"python": Path(sys.executable).resolve()}
    for package in (hypervisor_agent, cafe_lib):
        root = Path(package.__path__[0])
        for path in root.rglob("*"):
            if path.is_file() and path.suffix not in _SKIPPED:
                files[f"{root.name}/{path.relative_to(root).as_posix()}"] = path
    return files


def measure_files(files: dict[str, Path]) -> bytes:
    """Return SHA-256 over all names and contents, in the order of the names. Raises HostError."""
    total = hashlib.sha256(_LABEL)
    for name, path in sorted(files.items()):
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise HostError(f"{path} cannot be measured: {error.strerror}") from error
        total.update(hashlib.sha256(name.encode()).digest() + content)
    return total.digest()


def extend_once(tpm: Tpm, index: int, measurement: bytes) -> bytes:
    """Extend the PCR unless it shows exactly this measurement already; return its value.

    Starting the same software again since boot changes nothing; any other software leaves a value that no
    policy names.
    """
    expected = hashlib.sha256(bytes(32) + measurement).digest()
    selection = ((SHA256_BANK, (index,)),)
    ((_, _, value),) = tpm.read_pcrs(selection)
    if value != expected:
        tpm.extend_pcr(index, measurement)
        ((_, _, value),) = tpm.read_pcrs(selection)
    return value


def become_agent(arguments: list[str]) -> None:
    """Replace this process by the agent; never returns."""
    os.execv(sys.executable, [sys.executable, "-m", "hypervisor_agent", *arguments])  # noqa: S606 - no shell is wanted
