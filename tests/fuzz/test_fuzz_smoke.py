"""Every fuzz target for a moment, from its corpus on; without clang, the corpus alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
TARGETS = sorted(path.stem for path in HERE.glob("*.c") if path.stem != "replay")


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.case("B04", "B06", "B11")
def test_target_finds_nothing(tmp_path: Path, name: str) -> None:
    assert any((HERE / "corpus" / name).iterdir()), "a target has a corpus"
    limits = ["--seconds", "4", "--runs", "50000", "--work", str(tmp_path), "--keep"]
    done = subprocess.run(
        [sys.executable, str(HERE / "run.py"), name, *limits], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_target_can_fail(tmp_path: Path) -> None:
    """The harness's own check ends the run: a hole outside its element would not go unseen."""
    source = tmp_path / "bad.c"
    source.write_text(
        '#include "fuzz.h"\nint LLVMFuzzerTestOneInput(const uint8_t *d, size_t n) '
        "{ FUZZ_NEED(n == 0 || d[0] != 'x'); return 0; }\n"
    )
    program, bad = tmp_path / "bad", tmp_path / "input"
    bad.write_bytes(b"x")
    command = ["gcc", f"-I{HERE}", str(source), str(HERE / "replay.c"), "-o", str(program)]
    subprocess.run(command, check=True)
    done = subprocess.run([str(program), str(bad)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "does not hold" in done.stderr
