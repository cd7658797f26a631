"""What a secret function's declaration says, before its size expressions have a meaning."""

from __future__ import annotations

import re
from dataclasses import dataclass

from clang.cindex import Cursor, CursorKind, Type, TypeKind

from cafe_lib.interface.expression import ExpressionError, constants_of
from cafe_lib.interface.translation import notes_of, place_of

COUNTED = ("in", "out", "inout", "str")
ERROR_TEXT = re.compile(r"[\w\s().+*/%<>&|^~:-]{1,200}")


@dataclass(frozen=True, slots=True)
class ScannedParam:
    """``type`` is the adjusted one (an array parameter is a pointer); notes as written in cafe.h's macros."""

    name: str
    declared: Type
    type: Type
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scan:
    """One declaration. ``constants`` are the texts whose values its annotations need."""

    cursor: Cursor
    scope: tuple[str, ...]
    place: str
    params: tuple[ScannedParam, ...]
    errors: tuple[str, ...]  # texts of CAFE_ON_ERROR
    constants: tuple[str, ...]

    @property
    def notes(self) -> list[tuple[str, ...]]:
        """All annotations of parameters and errors."""
        return [self.errors, *(param.notes for param in self.params)]

    @property
    def display(self) -> str:
        """The name with its namespaces."""
        return "::".join((*self.scope, self.cursor.spelling))


def scan_function(cursor: Cursor) -> Scan:
    """Collect the pieces; nothing is refused yet."""
    params = _params(cursor)
    names = {param.name: index for index, param in enumerate(params)}
    constants: list[str] = []
    for param in params:
        for note in param.notes:
            constants += _constants_in(note, names)
    errors = tuple(
        note.removeprefix("error:").strip() for note in notes_of(cursor) if note.startswith("error:")
    )
    constants += [text for text in errors if is_integer_text(text)]
    return Scan(cursor, _scope(cursor), place_of(cursor.location), params, errors, tuple(constants))


def is_integer_text(text: str) -> bool:
    """Whether a CAFE_ON_ERROR text may be asked of the compiler as an integer."""
    return ERROR_TEXT.fullmatch(text) is not None and text.count("(") == text.count(")")


def _params(cursor: Cursor) -> tuple[ScannedParam, ...]:
    if cursor.type.kind != TypeKind.FUNCTIONPROTO:
        return ()
    adjusted = list(cursor.type.get_canonical().argument_types())
    return tuple(
        ScannedParam(param.spelling, param.type, kind, tuple(notes_of(param)))
        for param, kind in zip(cursor.get_arguments(), adjusted, strict=True)
    )


def _constants_in(note: str, names: dict[str, int]) -> list[str]:
    kind, _, text = note.partition(":")
    if kind not in COUNTED:
        return []
    try:
        return constants_of(text, names)
    except ExpressionError:
        return []  # said where the expression is parsed


def _scope(cursor: Cursor) -> tuple[str, ...]:
    names: list[str] = []
    parent = cursor.semantic_parent
    while parent is not None and parent.kind != CursorKind.TRANSLATION_UNIT:
        if parent.kind == CursorKind.NAMESPACE:
            names.insert(0, parent.spelling)
        parent = parent.semantic_parent
    return tuple(names)
