"""Annotated headers to the interface model; every problem of every function is reported at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clang.cindex import Cursor, CursorKind

from cafe_lib.errors import InterfaceError
from cafe_lib.interface.constants import Wanted, constant_values
from cafe_lib.interface.diagnostics import Problem, refuse
from cafe_lib.interface.functions import read_function
from cafe_lib.interface.model import Function, Interface
from cafe_lib.interface.scan import Scan, scan_function
from cafe_lib.interface.translation import (
    Source,
    check_headers,
    declarations,
    errors_in,
    notes_of,
    place_of,
    read_unit,
)

MAX_FUNCTIONS = 1024
ANNOTATE = "mark the functions that are to run in the enclave with CAFE_SECRET"


def parse_header(
    path: Path, include_dirs: Sequence[Path] = (), language: str = "c", flags: Sequence[str] = ()
) -> Interface:
    """Read one annotated header. Raises InterfaceError with all diagnostics."""
    return parse_headers([path], include_dirs, language, flags)


def parse_headers(
    paths: Sequence[Path], include_dirs: Sequence[Path] = (), language: str = "c", flags: Sequence[str] = ()
) -> Interface:
    """Read headers together; ``language`` is "c" or "c++", ``flags`` the project's preprocessor flags.

    Raises InterfaceError with all diagnostics.
    """
    if language not in ("c", "c++"):
        raise InterfaceError(f"unknown language {language!r}", hint='use "c" or "c++"')
    check_headers(paths)
    source = Source(tuple(paths), language, tuple(include_dirs), tuple(flags))
    unit = read_unit(source)
    problems = errors_in(unit)
    if problems:
        raise refuse(problems)
    functions = _functions(source, list(declarations(unit)), problems)
    if problems:
        raise refuse(problems)
    if not functions:
        raise InterfaceError("no function is annotated CAFE_SECRET", hint=ANNOTATE)
    if len(functions) > MAX_FUNCTIONS:
        raise InterfaceError(f"{len(functions)} secret functions, {MAX_FUNCTIONS} is the most")
    return Interface(tuple(path.name for path in paths), language, tuple(functions))


def _functions(source: Source, found: list[Cursor], problems: list[Problem]) -> list[Function]:
    secret = [cursor for cursor in found if "secret" in notes_of(cursor) and _usable(cursor, problems)]
    scans = _without_repeats([scan_function(cursor) for cursor in secret], problems)
    wanted: list[Wanted] = [(scan.scope, text) for scan in scans for text in scan.constants]
    values = constant_values(source, wanted)
    functions = [read_function(scan, values, problems) for scan in scans]
    return [function for function in functions if function is not None]


def _without_repeats(scans: list[Scan], problems: list[Problem]) -> list[Scan]:
    """Keep the first declaration of each function; a later one has the annotations of both."""
    first: dict[str, Scan] = {}
    for scan in scans:
        known = first.setdefault(scan.cursor.mangled_name, scan)
        if scan.notes != known.notes:
            text = f"declared secret before, at {known.place}, and differently"
            problems.append(Problem(scan.place, scan.display, "", text, "annotate one declaration only"))
    return list(first.values())


def _usable(cursor: Cursor, problems: list[Problem]) -> bool:
    """Tell a declaration that can be a secret function at all."""
    what = _unusable(cursor)
    if what is not None:
        problems.append(Problem(place_of(cursor.location), cursor.spelling, "", *what))
    return what is None


def _unusable(cursor: Cursor) -> tuple[str, str] | None:
    if cursor.kind == CursorKind.FUNCTION_TEMPLATE:
        return "a template cannot be secret", "declare a function for each type that is needed"
    if cursor.kind in (CursorKind.CXX_METHOD, CursorKind.CONSTRUCTOR, CursorKind.DESTRUCTOR):
        return "a member function cannot be secret", "declare a free function that takes what it needs"
    if cursor.kind != CursorKind.FUNCTION_DECL:
        return (
            "only functions can be secret",
            "move it into a secret source file, which the header need not show",
        )
    if cursor.is_definition():
        return "its body is in the header, so it is public", "declare it here, define it in a secret source"
    if cursor.linkage.name != "EXTERNAL":
        return "it has no external linkage", "remove `static` or the unnamed namespace"
    return None
