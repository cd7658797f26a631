"""The conventions of the architecture that no linter knows: sizes, unfinished marks, named cases."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEEDED_CASES = (
    *(f"A{n:02}" for n in (*range(1, 12), 14, *range(18, 25), 34, 37)),
    *(f"B{n:02}" for n in range(1, 21)),
    *(f"C{n:02}" for n in range(1, 9)),
    *(f"D{n:02}" for n in range(1, 7)),
    "E04",
)


def _tracked(*suffixes: str) -> list[Path]:
    command = ["git", "ls-files"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [
        ROOT / name for name in listing.split("\n") if name.endswith(suffixes) and (ROOT / name).is_file()
    ]


@pytest.mark.parametrize("path", _tracked(".py", ".c", ".h"), ids=lambda p: str(p.relative_to(ROOT)))
def test_file_is_short_and_finished(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400, "a file has 400 lines at most"
    marks = "TO" + "DO|FIX" + "ME|XX" + "X|NotImplemented" + "Error"
    assert not re.search(rf"\b({marks})\b", text), "unfinished work"


@pytest.mark.parametrize("path", _tracked(".py"), ids=lambda p: str(p.relative_to(ROOT)))
def test_functions_fit_the_eye(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= 50, f"{node.name} has {lines} lines, 50 at most"


def test_every_needed_case_has_a_test() -> None:
    named: set[str] = set()
    for path in _tracked(".py"):
        for marker in re.findall(r"mark\.case\(([^)]*)\)", path.read_text()):
            named.update(re.findall(r"[A-E][0-9]{2}", marker))
    assert set(NEEDED_CASES) <= named, f"no test for {sorted(set(NEEDED_CASES) - named)}"
