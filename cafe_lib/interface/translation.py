"""Headers to a libclang translation unit, with the system headers of the compiler that builds the stubs."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clang.cindex import Cursor, CursorKind, Diagnostic, Index, TranslationUnit, TranslationUnitLoadError

from cafe_lib.errors import InterfaceError
from cafe_lib.interface.diagnostics import Problem

CAFE_INCLUDE = Path(__file__).resolve().parent.parent / "include"
MAX_HEADER_BYTES = 4 << 20
COMPILER_SECONDS = 30
STANDARDS = {"c": "-std=gnu11", "c++": "-std=gnu++17"}
COMPILERS = {"c": "gcc", "c++": "g++"}
CONTAINERS = (
    CursorKind.NAMESPACE,
    CursorKind.LINKAGE_SPEC,
    CursorKind.UNEXPOSED_DECL,
    CursorKind.CLASS_DECL,
    CursorKind.STRUCT_DECL,
    CursorKind.UNION_DECL,
    CursorKind.CLASS_TEMPLATE,
)


@dataclass(frozen=True, slots=True)
class Source:
    """What to read. ``flags`` are the project's -D, -I and -std flags; the later -std counts."""

    headers: tuple[Path, ...]
    language: str
    include_dirs: tuple[Path, ...]
    flags: tuple[str, ...] = ()
    extra: Mapping[str, str] = field(default_factory=dict)

    def arguments(self) -> list[str]:
        """For libclang."""
        found = ["-x", self.language, STANDARDS[self.language], "-target", "x86_64-linux-gnu"]
        found += ["-DCAFE_READ_INTERFACE", "-nostdinc", "-ferror-limit=0", *self.flags]
        places = dict.fromkeys(
            [*(header.parent for header in self.headers), *self.include_dirs, CAFE_INCLUDE]
        )
        for place in places:
            found += ["-I", str(place)]
        for system in system_include_dirs(self.language):
            found += ["-isystem", system]
        return found


def check_headers(headers: Sequence[Path]) -> None:
    """Refuse files that are missing or too long. Raises InterfaceError."""
    for header in headers:
        try:
            size = header.stat().st_size
        except OSError as error:
            raise InterfaceError(f"{header.name}: {error.strerror}") from error
        if size > MAX_HEADER_BYTES or not header.is_file():
            raise InterfaceError(f"{header.name}: not a file of at most {MAX_HEADER_BYTES} bytes")


def read_unit(source: Source, tail: str = "") -> TranslationUnit:
    """Parse all headers as one unit, ``tail`` after them. Raises InterfaceError if libclang gives up."""
    text = "".join(f'#include "{header.resolve()}"\n' for header in source.headers) + tail
    name = f"cafe-interface.{'cc' if source.language == 'c++' else 'c'}"
    try:
        return Index.create().parse(name, source.arguments(), unsaved_files=[(name, text)])
    except TranslationUnitLoadError as error:
        raise InterfaceError("the header could not be parsed at all") from error


def errors_in(unit: TranslationUnit) -> list[Problem]:
    """List the compiler's own complaints, not those about bodies of gcc's headers that clang cannot read."""
    return [
        Problem(place_of(found.location), "", "", found.spelling)
        for found in unit.diagnostics
        if found.severity >= Diagnostic.Error and not found.location.is_in_system_header
    ]


def declarations(unit: TranslationUnit) -> Iterator[Cursor]:
    """Every declaration outside system headers, members of classes included."""
    pending = list(reversed(list(unit.cursor.get_children())))
    while pending:
        cursor = pending.pop()
        if cursor.location.is_in_system_header:
            continue
        yield cursor
        if cursor.kind in CONTAINERS:
            pending.extend(reversed(list(cursor.get_children())))


def notes_of(cursor: Cursor) -> list[str]:
    """List the annotations of cafe.h on a declaration, without their prefix."""
    notes = [
        child.spelling.removeprefix("cafe:")
        for child in cursor.get_children()
        if child.kind == CursorKind.ANNOTATE_ATTR and child.spelling.startswith("cafe:")
    ]
    return list(dict.fromkeys(notes))  # a second declaration repeats those of the first


def place_of(location: object) -> str:
    """``file:line``, the file without its folder."""
    file = getattr(location, "file", None)
    return f"{Path(file.name).name}:{getattr(location, 'line', 0)}" if file else ""


@functools.cache
def system_include_dirs(language: str) -> tuple[str, ...]:
    """Ask the compiler for its search list. Raises InterfaceError if there is no compiler."""
    compiler = shutil.which(COMPILERS[language])
    if compiler is None:
        raise InterfaceError(f"there is no {COMPILERS[language]}", hint="install gcc and g++")
    command = [compiler, "-E", "-v", "-x", language, "/dev/null"]
    try:
        run = subprocess.run(  # noqa: S603 - a fixed command without a shell
            command, capture_output=True, text=True, check=True, timeout=COMPILER_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise InterfaceError(f"{COMPILERS[language]} does not run") from error
    return tuple(re.findall(r"^ (/\S+)$", run.stderr.split("search starts here:")[-1], re.MULTILINE))
