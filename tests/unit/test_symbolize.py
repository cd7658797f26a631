"""`cafe symbolize`: offsets become functions and lines, of the right build only."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cafe_lib.cli.main import app
from cafe_lib.errors import (
    BuildError,
    DigestError,
    LimitError,
    MalformedError,
    NotFoundError,
    ProtocolError,
)
from cafe_lib.toolchain.record import RECORD_FILE, image_digest, read_record
from cafe_lib.toolchain.symbolize import MAX_LINE_CHARACTERS, Report, Symbolizer, parse_reports

ID = "ab12" * 16
SOURCE = """\
static inline __attribute__((always_inline)) int inner(volatile int *at) {
    return *at;
}
int outer(volatile int *at) {
    return inner(at) + 1;
}
void _start(void) { __asm__("ud2"); }
"""
BARE = ".globl bare\n.type bare, @function\nbare: nop; nop; ret\n.size bare, . - bare\n"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a build directory with an image of two functions with debug information and one without."""
    root = tmp_path_factory.mktemp("project")
    (root / "secret.c").write_text(SOURCE)
    (root / "bare.s").write_text(BARE)
    output = root / "build"
    (output / "secret").mkdir(parents=True)
    image = output / "secret" / "image.elf"
    subprocess.run(["as", "bare.s", "-o", "bare.o"], cwd=root, check=True)
    flags = ["-g", "-O1", "-ffreestanding", "-fcf-protection=none", f"-ffile-prefix-map={root}=."]
    link = ["-nostdlib", "-static", "-Wl,-pie,--no-dynamic-linker,--build-id=none"]
    subprocess.run(["gcc", *flags, *link, "secret.c", "bare.o", "-o", image], cwd=root, check=True)
    record = {"mode": "production", "secret_binary_id": ID, "image_sha256": image_digest(image)}
    (output / RECORD_FILE).write_text(json.dumps(record))
    return output


def offset_of(build: Path, name: str) -> int:
    listing = subprocess.run(
        ["nm", build / "secret" / "image.elf"], capture_output=True, text=True, check=True
    )
    return int(re.search(rf"^([0-9a-f]+) \w {name}$", listing.stdout, re.MULTILINE)[1], 16)  # type: ignore[index]


def test_a_place_with_what_is_inlined_there(build: Path) -> None:
    (one,) = Symbolizer(build).explain([Report(ID, offset_of(build, "outer"))])
    assert [(frame.function, frame.place) for frame in one.frames] == [
        ("inner", "secret.c:2"),
        ("outer", "secret.c:5"),
    ]


def test_a_function_without_debug_information_and_no_function(build: Path) -> None:
    bare = offset_of(build, "bare")
    reports = [Report(ID, bare + 1), Report(ID, 0xFFFFFF), Report(ID[:16], None), Report(ID[:20], bare)]
    named, none, unknown, again = Symbolizer(build).explain(reports)
    assert [(frame.function, frame.place) for frame in named.frames] == [("bare", "")]
    assert named.frames == again.frames
    assert none.frames == unknown.frames == ()


def test_another_builds_report_is_refused(build: Path) -> None:
    one = Symbolizer(build)
    for other in ("cd" * 32, ID[:-1] + "0", "cd" * 8):
        with pytest.raises(DigestError, match="report is of build"):
            one.explain([Report(ID, 0), Report(other, 0)])


def test_an_image_that_was_changed_is_refused(build: Path, tmp_path: Path) -> None:
    shutil.copytree(build, tmp_path / "build")
    image = tmp_path / "build" / "secret" / "image.elf"
    image.write_bytes(image.read_bytes() + b"\0")
    with pytest.raises(DigestError, match=r"image\.elf"):
        Symbolizer(tmp_path / "build")
    image.unlink()
    with pytest.raises(NotFoundError):
        Symbolizer(tmp_path / "build")
    with pytest.raises(NotFoundError, match=r"build\.json"):
        Symbolizer(tmp_path / "none")


def test_a_native_build_has_nothing_to_explain(build: Path, tmp_path: Path) -> None:
    shutil.copytree(build, tmp_path / "build")
    record = {"mode": "native", "secret_binary_id": "", "image_sha256": ""}
    (tmp_path / "build" / RECORD_FILE).write_text(json.dumps(record))
    with pytest.raises(NotFoundError, match="native"):
        Symbolizer(tmp_path / "build")


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "{", '{"mode": 1, "secret_binary_id": 2}', "\0", "[" * 9999]
)
def test_a_record_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD_FILE).write_text(text)
    with pytest.raises(ProtocolError):
        read_record(tmp_path)


def test_reports_in_every_form() -> None:
    event = {"event": "crash", "build_id": ID, "offset": "0x10", "kind": "#PF", "vm": "web-1"}
    lines = [
        f"{ID}+0x1f",
        f"  {ID[:16].upper()}+31 ",
        f"#UD (undefined instruction) at {ID}+0x2\n",
        "",
        json.dumps({"event": "step", "step": 1}),
        json.dumps(event),
        json.dumps({"event": "crash", "build_id": ID, "image_offset": 17}),
        json.dumps({**event, "offset": None}),
    ]
    assert [(one.build_id, one.offset) for one in parse_reports(lines)] == [
        (ID, 31),
        (ID[:16], 31),
        (ID, 2),
        (ID, 16),
        (ID, 17),
        (ID, None),
    ]


@pytest.mark.parametrize(
    "line",
    ["0x10", f"{ID}", f"{ID}+", f"{ID}+0x", f"{ID[:15]}+0x1", f"{ID}0+0x1", f"{ID}+0x10000000000000000",
     f"{ID}+99999999999999999999", "{", '{"event": "crash"}', '{"event": "crash", "build_id": "x"}',
     json.dumps({"event": "crash", "build_id": ID, "offset": -1}),
     json.dumps({"event": "crash", "build_id": ID, "offset": True}),
     json.dumps({"event": "crash", "build_id": ID, "offset": "10; rm"}), "{" + "[" * 5000],
)  # fmt: skip
def test_lines_that_are_no_report(line: str) -> None:
    with pytest.raises(MalformedError):
        parse_reports([line])


def test_too_much_is_refused() -> None:
    with pytest.raises(LimitError):
        parse_reports(["x" * (MAX_LINE_CHARACTERS + 1)])
    with pytest.raises(LimitError):
        parse_reports(f"{ID}+1" for _ in range(100_000))


@given(st.text(max_size=120))
def test_any_line_is_a_report_or_an_error(line: str) -> None:
    for text in (line, "{" + line):
        with suppress(ProtocolError):
            assert all(isinstance(one, Report) for one in parse_reports([text]))


def test_the_command(build: Path) -> None:
    report = f"{ID[:16]}+{offset_of(build, 'outer'):#x}"
    run = CliRunner().invoke
    said = run(app, ["symbolize", str(build.parent), report])
    assert said.exit_code == 0
    assert "in inner at secret.c:2" in said.stdout
    assert "inlined into outer at secret.c:5" in said.stdout
    event = json.dumps({"event": "crash", "build_id": ID, "offset": report.partition("+")[2]})
    found = json.loads(run(app, ["symbolize", str(build), "--json"], input=event + "\n").stdout)
    assert [frame["function"] for frame in found[0]["frames"]] == ["inner", "outer"]
    assert isinstance(run(app, ["symbolize", str(build), "cd" * 32 + "+0x1"]).exception, DigestError)


def test_without_addr2line(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Symbolizer(build)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BuildError, match="addr2line"):
        one.explain([Report(ID, 0x1000)])
