"""Values of the names in annotations (macros, enum constants, sizeof), asked of libclang in the header."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from clang.cindex import CursorKind, Diagnostic, TranslationUnit

from cafe_lib.interface.translation import Source, read_unit

MAX_CONSTANTS = 4096
Wanted = tuple[tuple[str, ...], str]  # the namespaces to look from, the text
_PREFIX = "cafe_probe_"
_FILE = "cafe-interface."


def constant_values(source: Source, wanted: Iterable[Wanted]) -> Mapping[Wanted, int]:
    """Find the integer value of each text that has one. Raises InterfaceError if libclang gives up."""
    texts = list(dict.fromkeys(wanted))[:MAX_CONSTANTS]
    if not texts:
        return {}
    lines = [_probe(index, scope, text) for index, (scope, text) in enumerate(texts)]
    unit = read_unit(source, "".join(lines))
    first = len(source.headers) + 1
    failed = {
        found.location.line - first
        for found in unit.diagnostics
        if found.severity >= Diagnostic.Error
        and found.location.file is not None
        and found.location.file.name.startswith(_FILE)
    }
    return {
        texts[index]: value
        for index, value in _probe_values(unit).items()
        if index < len(texts) and index not in failed
    }


def _probe(index: int, scope: tuple[str, ...], text: str) -> str:
    opening = "".join(f"namespace {name} {{ " for name in scope)
    return f"{opening}enum {{ {_PREFIX}{index} = ({text}) }};{' }' * len(scope)}\n"


def _probe_values(unit: TranslationUnit) -> dict[int, int]:
    found = {}
    pending = list(unit.cursor.get_children())
    while pending:
        cursor = pending.pop()
        if cursor.location.file is None or not cursor.location.file.name.startswith(_FILE):
            continue
        if cursor.kind == CursorKind.ENUM_CONSTANT_DECL:
            name = re.fullmatch(rf"{_PREFIX}([0-9]+)", cursor.spelling)
            if name:
                found[int(name[1])] = int(cursor.enum_value)
        elif cursor.kind in (CursorKind.NAMESPACE, CursorKind.ENUM_DECL):
            pending.extend(cursor.get_children())
    return found
