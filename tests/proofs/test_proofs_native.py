"""The proof harnesses as property tests: random and edge values, under ASan and UBSan."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FILES = sorted(path.stem for path in HERE.glob("*.c") if path.stem not in ("native", "broken"))
FLAGS = ("-std=gnu17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-Wconversion")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
FOLDERS = ("cafe_lib/include", "cafe_lib/runtime", "cafe_lib/guest", "hypervisor_agent/vmm")
RUNS = 100_000


def build(place: Path, name: str) -> Path:
    program = place / name
    includes = [f"-I{ROOT / folder}" for folder in FOLDERS]
    sources = [str(HERE / f"{name}.c"), str(HERE / "native.c")]
    subprocess.run(["gcc", *FLAGS, *SANITIZE, *includes, *sources, "-o", str(program)], check=True)
    return program


@pytest.mark.parametrize("name", FILES)
@pytest.mark.case("B04", "B06", "B07")
def test_claims_hold(tmp_path: Path, name: str) -> None:
    done = subprocess.run(
        [build(tmp_path, name), str(RUNS), "20"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"^(prove_\w+) \d+ runs (\d+) held$", done.stdout, re.MULTILINE))
    declared = re.findall(r"^void (prove_\w+)\(void\) \{", (HERE / f"{name}.c").read_text(), re.MULTILINE)
    assert set(found) == set(declared), "every harness is in PROOF_HARNESSES"
    assert all(int(held) > RUNS / 1000 for held in found.values()), "assumptions are met often enough"


def test_a_false_claim_is_found(tmp_path: Path) -> None:
    done = subprocess.run([build(tmp_path, "broken"), "1000"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "does not hold: " in done.stderr
