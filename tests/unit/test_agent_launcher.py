"""The measured launcher: every file counts, and starting the same software again changes nothing."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pytest

from cafe_lib.errors import HostError
from hypervisor_agent.launcher import extend_once, measure_files, measured_files
from hypervisor_agent.steps import Steps
from hypervisor_agent.tpm.port import PcrValues, Selection


class OnePcr:
    value = bytes(32)

    def read_pcrs(self, selection: Selection) -> PcrValues:
        ((algorithm, (index,)),) = selection
        return ((algorithm, index, self.value),)

    def extend_pcr(self, _index: int, digest: bytes) -> None:
        self.value = hashlib.sha256(self.value + digest).digest()


def test_agent_vmm_and_library_are_measured() -> None:
    names = measured_files()
    assert {
        "python",
        "hypervisor_agent/__main__.py",
        "cafe_lib/errors.py",
        "hypervisor_agent/vmm/main.c",
    } <= set(names)
    assert not any(name.endswith(".pyc") for name in names)


@pytest.mark.parametrize("change", ["content", "name", "added", "removed"])
def test_any_change_changes_the_measurement(tmp_path: Path, change: str) -> None:
    files = {name: tmp_path / name for name in ("a", "b")}
    for name, path in files.items():
        path.write_text(name)
    before = measure_files(files)
    assert measure_files(dict(reversed(files.items()))) == before
    if change == "content":
        files["a"].write_text("A")
    elif change == "name":
        files["c"] = files.pop("a")
    elif change == "added":
        files["c"] = files["a"]
    else:
        del files["a"]
    assert measure_files(files) != before


def test_a_missing_file_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(HostError):
        measure_files({"x": tmp_path / "x"})


def test_the_same_software_again_changes_nothing_and_other_software_does() -> None:
    tpm = OnePcr()
    first = extend_once(tpm, 14, b"m" * 32)  # type: ignore[arg-type] # all of a TPM that is used
    assert first == hashlib.sha256(bytes(32) + b"m" * 32).digest()
    assert extend_once(tpm, 14, b"m" * 32) == first  # type: ignore[arg-type] # as above
    other = extend_once(tpm, 14, b"n" * 32)  # type: ignore[arg-type] # as above
    assert other not in (first, hashlib.sha256(bytes(32) + b"n" * 32).digest())
    assert extend_once(tpm, 14, b"m" * 32) not in (first, other)  # type: ignore[arg-type] # as above


def test_steps_are_json_lines() -> None:
    stream = io.StringIO()
    steps = Steps(stream)
    with steps.timed("loading", 4):
        pass
    with pytest.raises(ValueError, match="x"), steps.timed("deployment", 3):
        raise ValueError("x")
    steps.event("ready")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["phase"], first["step"]) == ("step", "loading", 4)
    assert first["title"] == "relocate and seal"
    assert first["ms"] >= 0
    assert (second["event"], second["by"]) == ("ready", "agent")
