"""What has to be trusted stays small; comments and blank lines are told from code; the picture is sound."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "benchmarks" / "tcb.py"
CASES = {
    "": 0,
    "\n  \n": 0,
    "int x;": 1,
    "// one\n/* two\n three */\n": 0,
    "int a; /* b\n c */ int d;\n": 2,
    'char *s = "/* no comment */"; // one\nchar c = \'"\';\n': 2,
    "/* a */ /* b */\nx = 1; /* c */\n": 1,
    'puts("a\\"//b");\n}\n': 2,
    "#define A 1 \\\n  + 2\n": 2,
}


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *(str(word) for word in words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_trusted_parts_are_within_their_bounds() -> None:
    done = run("--json")
    assert done.returncode == 0, done.stdout + done.stderr
    sizes = {size["name"]: size for size in json.loads(done.stdout)}
    assert 0 < sizes["VMM"]["c_lines"] <= 1500
    assert 0 < sizes["runtime"]["c_lines"] <= 800
    assert sizes["libcafe (untrusted)"]["most"] is None
    assert all(size["compiled_bytes"] > 0 for size in sizes.values())


def test_every_source_of_a_trusted_part_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import tcb  # noqa: PLC0415 - a script, found by the line above

    counted = {path for part in tcb.PARTS for path in part.sources()}
    for folder in ("hypervisor_agent/vmm", "cafe_lib/runtime", "cafe_lib/guest"):
        found = {path for path in (ROOT / folder).iterdir() if path.suffix in (".c", ".h", ".S")}
        assert found <= counted
    large = tcb.Size("x", 801, 0, 0, 1, 1, 800)
    assert not large.good
    drawn = ET.fromstring(tcb.draw([tcb.Size("a<b", 700, 5, 5, 1, 1, 800)]))  # noqa: S314 - ours
    texts = [element.text for element in drawn.iter() if element.tag.endswith("text")]
    assert "CAFE: a<b" in texts
    assert "710" in texts


@pytest.mark.parametrize("text", CASES)
def test_lines_of_code(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text(text)
    assert run("--count", tmp_path).stdout.split()[0] == str(CASES[text])
