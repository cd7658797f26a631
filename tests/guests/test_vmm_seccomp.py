"""The VMM's system call filter: what it needs is allowed, with its arguments; the rest ends it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VMM = ROOT / "hypervisor_agent" / "vmm"
FILTER = VMM / "seccomp.c"
TRIES = re.findall(r"\{(true|false), \"([^\"]+)\", ", (HERE / "seccomp_try.c").read_text())


@pytest.fixture(scope="module")
def fates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """Make every call in a child with the VMM's own filter: what should become of it, and what did."""
    program = tmp_path_factory.mktemp("seccomp") / "seccomp_try"
    flags = ["-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'cafe_lib' / 'include'}", f"-I{VMM}"]
    sources = [str(HERE / "seccomp_try.c"), str(FILTER)]
    subprocess.run(["gcc", *flags, *sources, "-o", str(program)], check=True)
    text = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    rows = [line.split("|") for line in text.splitlines()]
    return {name: (wanted, fate) for wanted, fate, name in rows}


@pytest.mark.case("B19")
@pytest.mark.parametrize("name", [name for allowed, name in TRIES if allowed == "false"])
def test_another_call_ends_it(fates: dict[str, tuple[str, str]], name: str) -> None:
    assert fates[name] == ("killed", "killed")


@pytest.mark.case("B19")
@pytest.mark.parametrize("name", [name for allowed, name in TRIES if allowed == "true"])
def test_call_that_it_needs_is_allowed(fates: dict[str, tuple[str, str]], name: str) -> None:
    assert fates[name] == ("lives", "lives")


@pytest.mark.case("B19")
def test_every_other_number_ends_it(fates: dict[str, tuple[str, str]]) -> None:
    others = {name: fate for name, (_, fate) in fates.items() if name.endswith("with zeros")}
    assert len(others) > 400
    assert set(others.values()) == {"killed"}, [name for name, fate in others.items() if fate != "killed"]


def test_each_allowed_call_has_its_reason() -> None:
    """A comment before it begins with its name."""
    text = FILTER.read_text()
    calls = re.findall(r"(?:UNLESS|ALLOW_CALL)\(SYS_(\w+)", text)
    reasons = re.findall(r"^ +/\* (\w+)(?: and (\w+))?(?: on a vCPU only)?: ", text, re.MULTILINE)
    assert sorted(calls) == sorted(filter(None, (name for pair in reasons for name in pair)))
