"""The programs of `make coverage`, as ordinary tests: under ASan and UBSan, whatever is counted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CASES = {
    "rt_calling_back": ("B02", "B09", "B12", "B14"),
    "rt_memory": ("B16",),
    "rt_parts": ("B04", "B05", "B06", "B07", "B10"),
    "rt_racing": ("B08", "B14", "B17"),
    "rt_serving": ("B03", "B08", "B12", "B13", "B17"),
    "vmm_config": ("B04",),
    "vmm_control": ("B17",),
    "vmm_hostile": ("B08", "B12", "B16", "B17", "B19"),
    "vmm_main": ("B17",),
    "vmm_run": ("B15", "B16", "B19"),
    "vmm_sleep": ("B15", "B17"),
}
PROGRAMS = [pytest.param(name, marks=pytest.mark.case(*cases)) for name, cases in CASES.items()]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HERE / "run.py"), *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_finds_nothing(tmp_path: Path, name: str) -> None:
    done = _run(name, "--sanitize", "--work", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_branch_that_is_not_taken_is_told(tmp_path: Path) -> None:
    """With one program left out, what only it covers is missing, and the exit code says so."""
    done = _run("vmm_config", "rt_parts", "--work", str(tmp_path))
    assert done.returncode == 1
    assert "hypervisor_agent/vmm/run.c: nothing of it ran" in done.stdout
    assert "cafe_lib/runtime/rt_callback.c:" in done.stdout.split("not taken:")[1]


def test_every_program_is_run_as_a_test() -> None:
    sources = {path.stem for path in HERE.glob("*.c")} - {"kernel", "play"}
    assert sources == set(CASES)
