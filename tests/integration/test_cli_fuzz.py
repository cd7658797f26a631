"""`cafe fuzz`: a sound project holds against both hostile sides; every kind of flaw is found and replayed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

KIT = Path(__file__).resolve().parent / "secrets" / "fuzz_kit"
CAFE = Path(sys.executable).with_name("cafe")
FUNCTIONS = ["kit_sum", "kit_name", "kit_records"]
Project = Callable[..., Path]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Copy the kit, with flaws or none; a second call changes them in place."""

    def make(*flaws: str) -> Path:
        place = tmp_path / "project"
        shutil.copytree(KIT, place, dirs_exist_ok=True)
        options = "".join(f', "-DFLAW_{flaw}"' for flaw in flaws)
        text = (KIT / "cafe.toml").read_text()
        (place / "cafe.toml").write_text(text.replace('"-Wextra"', f'"-Wextra"{options}'))
        return place

    return make


def fuzz(place: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Run the command; its exit code and what it printed."""
    command = [str(CAFE), "fuzz", str(place), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.case("B02", "B04", "B05", "B06", "B07", "B08", "B09", "B11")
@pytest.mark.slow
def test_a_sound_project_holds(project: Project) -> None:
    code, answer = fuzz(
        project(),
        "--seed",
        "20",
        "--iterations",
        "3000",
        "--rewrites",
        str(10**7),
        "--hang-seconds",
        "30",
    )
    assert (code, answer["findings"]) == (0, [])
    assert [row["function"] for row in answer["functions"]] == FUNCTIONS
    for row in answer["functions"]:
        assert row["rewrites"] >= 10**7, "while frames were read"
        assert min(row["calls"], row["refused"]) > 500, "some reach the secret code, some do not"
        assert row["replies"] == 3000
    assert sum(row["callbacks"] for row in answer["functions"]) > 1000
    assert sum(row["nested"] for row in answer["functions"]) > 100


# One flaw to a function, and what is said of it.
FLAWS = [
    {
        "OVERFLOW": ("kit_name", "memory"),
        "TRUST": ("kit_records", "undefined"),
        "DOUBLE_FETCH": ("kit_sum", "double fetch"),
    },
    {"UNDEFINED": ("kit_name", "undefined"), "SHARED": ("kit_sum", "memory")},
    {"HANG": ("kit_name", "hang"), "OUTSIDE": ("kit_sum", "read outside the slot")},
    {"ABORT": ("kit_name", "abort")},
]
QUICK = ("--iterations", "2000", "--rewrites", "1000", "--seed", "5", "--hang-seconds", "1.5")


@pytest.mark.parametrize("flaws", FLAWS, ids=" ".join)
@pytest.mark.slow
def test_flaws_are_found_and_happen_again(project: Project, flaws: dict[str, tuple[str, str]]) -> None:
    place = project(*flaws)
    code, answer = fuzz(place, *QUICK)
    found = {(one["running"], one["kind"]): one["file"] for one in answer["findings"]}
    assert code == 1
    assert set(found) == set(flaws.values()), "each is found, and no other function is blamed"
    for (_, kind), path in found.items():
        code, again = fuzz(place, "--replay", path, "--hang-seconds", "1.5")
        assert (code, again["found"]["kind"]) == (1, kind)


def test_a_seed_repeats_a_run_and_a_mended_flaw_is_gone(project: Project) -> None:
    place = project("OVERFLOW")
    first, second = (fuzz(place, *QUICK)[1]["findings"] for _ in range(2))
    assert first == second
    code, again = fuzz(project(), "--replay", first[0]["file"])
    assert (code, again["found"]) == (0, None)


def test_giving_up_can_be_allowed(project: Project) -> None:
    code, answer = fuzz(project("ABORT"), *QUICK, "--allow-abort")
    assert (code, answer["findings"]) == (0, [])
    assert sum(row["ended"] for row in answer["functions"]) > 0


def test_a_finding_of_another_interface_is_refused(project: Project) -> None:
    place = project("OVERFLOW")
    path = fuzz(place, *QUICK)[1]["findings"][0]["file"]
    header = (place / "kit.h").read_text()
    (place / "kit.h").write_text(header.replace("CAFE_STR(16)", "CAFE_STR(17)"))
    code, answer = fuzz(place, "--replay", path)
    assert (code, answer["error"]["code"]) == (2, "interface")


@pytest.mark.parametrize("content", ["", "{}", '{"format": "cafe fuzz 1"}', "[" * 100_000])
def test_a_file_that_is_no_finding(project: Project, tmp_path: Path, content: str) -> None:
    path = tmp_path / "finding.json"
    path.write_text(content)
    code, answer = fuzz(project(), "--replay", str(path))
    assert (code, answer["error"]["code"]) == (2, "build")


def test_no_project(tmp_path: Path) -> None:
    assert fuzz(tmp_path)[0] == 2


def test_the_table_and_the_way_to_repeat(project: Project) -> None:
    place = project("OVERFLOW")
    command = [str(CAFE), "fuzz", str(place), *QUICK]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 1
    assert done.stderr == "", "progress is for terminals"
    assert all(name in done.stdout for name in FUNCTIONS)
    assert "kit_name: memory: stack-buffer-overflow in kit_name kit.c:" in done.stdout
    assert f"cafe fuzz {place} --replay {place}/build/fuzz/findings/" in done.stdout
    assert done.stdout.splitlines()[-1] == "seed 5: 1 found"
