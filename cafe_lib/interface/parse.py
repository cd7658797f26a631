"""Annotated headers to the interface model; every problem of every function is reported at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from clang.cindex import Cursor, CursorKind

from cafe_lib.errors import InterfaceError
from cafe_lib.interface.constants import Wanted, constant_values
from cafe_lib.interface.diagnostics import Problem, refuse
from cafe_lib.interface.functions import read_function
from cafe_lib.interface.model import Interface
from cafe_lib.interface.scan import Scan, scan_function
from cafe_lib.interface.shapes import BY_NAME
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
    scans, values = _scans(source, list(declarations(unit)), problems)
    read = [(scan.callback, read_function(scan, values, problems)) for scan in scans]
    if problems:
        raise refuse(problems)
    functions = tuple(one for callback, one in read if one is not None and not callback)
    callbacks = tuple(one for callback, one in read if one is not None and callback)
    if not functions:
        raise InterfaceError("no function is annotated CAFE_SECRET", hint=ANNOTATE)
    for what, some in (("secret functions", functions), ("callbacks", callbacks)):
        if len(some) > MAX_FUNCTIONS:
            raise InterfaceError(f"{len(some)} {what}, {MAX_FUNCTIONS} is the most")
    return Interface(tuple(path.name for path in paths), language, functions, callbacks)


def _scans(
    source: Source, found: list[Cursor], problems: list[Problem]
) -> tuple[list[Scan], Mapping[Wanted, int]]:
    usable = [cursor for cursor in found if _usable(cursor, problems)]
    scans = _without_repeats([scan_function(cursor) for cursor in usable], problems)
    return scans, constant_values(source, [wanted for scan in scans for wanted in scan.constants])


def _without_repeats(scans: list[Scan], problems: list[Problem]) -> list[Scan]:
    """Keep the first declaration of each function; a later one has the annotations of both."""
    first: dict[str, Scan] = {}
    for scan in scans:
        known = first.setdefault(scan.cursor.mangled_name, scan)
        if scan.notes != known.notes:
            text = f"declared before, at {known.place}, and differently"
            problems.append(Problem(scan.place, scan.display, "", text, "annotate one declaration only"))
    return list(first.values())


def _usable(cursor: Cursor, problems: list[Problem]) -> bool:
    """Tell an annotated declaration that can cross the boundary at all."""
    notes = set(notes_of(cursor)) & {"secret", "callback", "serial"}
    if not notes:
        return False
    what = _unusable(cursor, notes)
    if what is not None:
        problems.append(Problem(place_of(cursor.location), cursor.spelling, "", *what))
    return what is None


def _unusable(cursor: Cursor, notes: set[str]) -> tuple[str, str] | None:
    if "secret" not in notes and "serial" in notes:
        return "CAFE_SERIAL on a function that is not secret", "remove it, or add CAFE_SECRET"
    if {"secret", "callback"} <= notes:
        return "both CAFE_SECRET and CAFE_CALLBACK", "a function runs either in the enclave or in the program"
    callback = "callback" in notes
    return _no_function(cursor, callback=callback) or _no_prototype(cursor, callback=callback)


def _no_function(cursor: Cursor, *, callback: bool) -> tuple[str, str] | None:
    what = "a callback" if callback else "secret"
    if cursor.kind == CursorKind.FUNCTION_TEMPLATE:
        return f"a template cannot be {what}", "declare a function for each type that is needed"
    if cursor.kind in (CursorKind.CXX_METHOD, CursorKind.CONSTRUCTOR, CursorKind.DESTRUCTOR):
        return f"a member function cannot be {what}", "declare a free function that takes what it needs"
    if cursor.kind != CursorKind.FUNCTION_DECL:
        mend = BY_NAME if callback else "move it into a secret source file, which the header need not show"
        return f"only functions can be {'callbacks' if callback else 'secret'}", mend
    return None


def _no_prototype(cursor: Cursor, *, callback: bool) -> tuple[str, str] | None:
    if cursor.is_definition():
        where, side = ("the public program", "secret, too") if callback else ("a secret source", "public")
        return f"its body is in the header, so it is {side}", f"declare it here, define it in {where}"
    if cursor.linkage.name != "EXTERNAL":
        return "it has no external linkage", "remove `static` or the unnamed namespace"
    return None
