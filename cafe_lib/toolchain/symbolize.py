"""Turns crash reports, which hold a build's id and an offset in its image, into functions and lines.

Only the machine that built the release can: image.elf with its debug information never leaves it.
"""

from __future__ import annotations

import json
import posixpath
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cafe_lib.errors import BuildError, DigestError, LimitError, MalformedError, NotFoundError
from cafe_lib.image.elf import LinkedImage
from cafe_lib.toolchain.compile import run
from cafe_lib.toolchain.record import image_digest, read_record

MAX_REPORTS: Final = 10_000
MAX_LINE_CHARACTERS: Final = 65_536
_ID_DIGITS: Final = 64
_ADDRESSES_AT_ONCE: Final = 256
_MIN_DIGITS: Final = 16
_HEX_ID: Final = rf"[0-9a-f]{{{_MIN_DIGITS},{_ID_DIGITS}}}"
_NUMBER: Final = r"0x[0-9a-f]{1,16}|[0-9]{1,20}"
_ID: Final = re.compile(_HEX_ID, re.IGNORECASE)
_OFFSET: Final = re.compile(_NUMBER, re.IGNORECASE)
_REPORT: Final = re.compile(rf"({_HEX_ID})\+({_NUMBER})", re.IGNORECASE)
_UNKNOWN: Final = "??"
_LINE: Final = re.compile(r"(.*):(\d+|\?)(?: \(discriminator \d+\))?")


@dataclass(frozen=True, slots=True)
class Report:
    """``build_id``: the SecretBinaryID in hex, or its first 16 digits and more. ``offset`` None: unknown."""

    build_id: str
    offset: int | None


@dataclass(frozen=True, slots=True)
class Frame:
    """A function, and where in it; ``line`` 0 and ``file`` "" where the debug information says nothing."""

    function: str
    file: str
    line: int

    @property
    def place(self) -> str:
        """file:line, "" if unknown."""
        return f"{self.file}:{self.line}" if self.file else ""


@dataclass(frozen=True, slots=True)
class Symbolized:
    """One report explained; the first frame is the innermost of those inlined there."""

    report: Report
    frames: tuple[Frame, ...]


def parse_reports(lines: Iterable[str]) -> list[Report]:
    """Parse reports: `BUILD_ID+0xOFFSET`, or a JSON object a line, of which only crashes count.

    :raises MalformedError: neither of them.
    :raises LimitError: more than MAX_REPORTS, or a line longer than MAX_LINE_CHARACTERS.
    """
    found: list[Report] = []
    for line in lines:
        if len(line) > MAX_LINE_CHARACTERS:
            raise LimitError("a report's line is too long")
        text = line.strip()
        report = _parse_json(text) if text.startswith("{") else _parse_short(text) if text else None
        if report is not None:
            found.append(report)
        if len(found) > MAX_REPORTS:
            raise LimitError(f"more than {MAX_REPORTS} reports")
    return found


def _parse_short(text: str) -> Report:
    match = _REPORT.fullmatch(text.rpartition(" ")[2])  # as a log says it: "#PF ... at BUILD_ID+0xOFFSET"
    if match is None:
        raise MalformedError(
            f"not a report: {text[:80]}", hint="give BUILD_ID+0xOFFSET, or the agent's JSON lines"
        )
    return Report(match[1].lower(), _offset(match[2]))


def _parse_json(text: str) -> Report | None:
    try:
        event = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedError("a report is not JSON") from error
    if event.get("event") != "crash":
        return None
    build_id, offset = event.get("build_id"), event.get("offset", event.get("image_offset"))
    if not isinstance(build_id, str) or not _ID.fullmatch(build_id):
        raise MalformedError("a crash names no build")
    return Report(build_id.lower(), None if offset in (None, "") else _offset(offset))


def _offset(value: object) -> int:
    if isinstance(value, str) and _OFFSET.fullmatch(value):
        value = int(value, 16 if value[:2].lower() == "0x" else 10)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**64:
        raise MalformedError("a crash's offset is not an offset")
    return value


class Symbolizer:
    """Answers for one build directory; raises NotFoundError or DigestError if it holds no one whole build."""

    def __init__(self, build: Path) -> None:
        if not (build / "secret").is_dir() and (build / "build" / "secret").is_dir():
            build = build / "build"
        record = read_record(build)
        self._image = build / "secret" / "image.elf"
        if not record.secret_binary_id:
            raise NotFoundError(f"{build} holds a native build, which has no image")
        if image_digest(self._image) != record.image_sha256:
            raise DigestError(
                f"{self._image} is not what was built with this package", hint="build once more"
            )
        self.build_id = record.secret_binary_id
        self._symbols = LinkedImage(self._image)

    def explain(self, reports: Sequence[Report]) -> list[Symbolized]:
        """Explain reports of this build.

        :raises DigestError: a report is another build's.
        :raises BuildError: addr2line failed or is absent.
        """
        for report in reports:
            if not self.build_id.startswith(report.build_id):
                raise DigestError(
                    f"the report is of build {report.build_id}, this directory holds {self.build_id}",
                    hint="use the directory that this release was built in",
                )
        places = sorted({report.offset for report in reports if report.offset is not None})
        frames = dict(zip(places, self._look_up(places), strict=True))
        return [
            Symbolized(report, () if report.offset is None else frames[report.offset]) for report in reports
        ]

    def _look_up(self, offsets: Sequence[int]) -> list[tuple[Frame, ...]]:
        if not offsets:
            return []
        tool = shutil.which("addr2line")
        if tool is None:
            raise BuildError("addr2line is not installed", hint="apt install binutils")
        found: list[tuple[Frame, ...]] = []
        for start in range(0, len(offsets), _ADDRESSES_AT_ONCE):
            words = [f"{offset:#x}" for offset in offsets[start : start + _ADDRESSES_AT_ONCE]]
            said = run([tool, "-e", str(self._image), "-a", "-f", "-i", "-C", *words], self._image.parent)
            found += _parse_answer(said)
        if len(found) != len(offsets):
            raise BuildError("addr2line left out an address")
        return [self._named(offset, frames) for offset, frames in zip(offsets, found, strict=True)]

    def _named(self, offset: int, frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
        """Take the symbol table's word where there is no debug information."""
        if any(frame.function != _UNKNOWN for frame in frames):
            return frames
        name = self._symbols.place(offset)
        return () if name == "?" else (Frame(name, "", 0),)


def _parse_answer(text: str) -> list[tuple[Frame, ...]]:
    """Read what addr2line prints: an address, then a function and a place for each frame."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if re.fullmatch(r"0x[0-9a-f]+", line):
            found.append([])
        elif found:
            found[-1].append(line)
    return [
        tuple(_frame(function, place) for function, place in zip(lines[::2], lines[1::2], strict=True))
        for lines in found
    ]


def _frame(function: str, place: str) -> Frame:
    match = _LINE.fullmatch(place)
    if match is None or match[1] == _UNKNOWN or not match[2].isdecimal():
        return Frame(function, "", 0)
    return Frame(function, posixpath.normpath(match[1]), int(match[2]))
