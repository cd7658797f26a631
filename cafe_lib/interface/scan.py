"""What an annotated declaration says, before its size expressions have a meaning."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from clang.cindex import AccessSpecifier, Cursor, CursorKind, Type, TypeKind

from cafe_lib.interface.constants import Wanted
from cafe_lib.interface.expression import ExpressionError, constants_of
from cafe_lib.interface.translation import notes_of, place_of

COUNTED = ("in", "out", "inout", "str")
ERROR_TEXT = re.compile(r"[\w\s().+*/%<>&|^~:-]{1,200}")
HIDDEN = (AccessSpecifier.PRIVATE, AccessSpecifier.PROTECTED)


@dataclass(frozen=True, slots=True)
class ScannedMember:
    """A member of a struct, ``offset`` bytes from its start."""

    name: str
    declared: Type
    type: Type
    notes: tuple[str, ...]
    offset: int
    hidden: bool  # private in C++


@dataclass(frozen=True, slots=True)
class ScannedRecord:
    """A struct with annotated members."""

    scope: tuple[str, ...]  # where the names in its annotations are looked up
    union: bool
    members: tuple[ScannedMember, ...]


@dataclass(frozen=True, slots=True)
class ScannedParam:
    """``type`` is the adjusted one (an array parameter is a pointer); notes as written in cafe.h's macros."""

    name: str
    declared: Type
    type: Type
    notes: tuple[str, ...]
    record: ScannedRecord | None  # what it points to, if members of that are annotated


@dataclass(frozen=True, slots=True)
class Scan:
    """One declaration. ``constants`` are the texts whose values its annotations need."""

    cursor: Cursor
    scope: tuple[str, ...]
    place: str
    params: tuple[ScannedParam, ...]
    errors: tuple[str, ...]  # texts of CAFE_ON_ERROR
    constants: tuple[Wanted, ...]
    callback: bool
    serial: bool

    @property
    def notes(self) -> list[tuple[str, ...]]:
        """All annotations of the function, its errors and its parameters."""
        own = [name for name, said in (("callback", self.callback), ("serial", self.serial)) if said]
        return [tuple(own), self.errors, *(param.notes for param in self.params)]

    @property
    def display(self) -> str:
        """The name with its namespaces."""
        return "::".join((*self.scope, self.cursor.spelling))


def scan_function(cursor: Cursor) -> Scan:
    """Collect the pieces; nothing is refused yet."""
    params, scope, notes = _params(cursor), _scope(cursor), notes_of(cursor)
    errors = tuple(note.removeprefix("error:").strip() for note in notes if note.startswith("error:"))
    texts = list(_constants_in((param.notes for param in params), (param.name for param in params)))
    constants = [(scope, text) for text in [*texts, *filter(is_integer_text, errors)]]
    for record in filter(None, (param.record for param in params)):
        names = [member.name for member in record.members]
        texts = list(_constants_in((member.notes for member in record.members), names))
        constants += [(record.scope, text) for text in texts]
    callback, serial = "callback" in notes, "serial" in notes
    place = place_of(cursor.location)
    return Scan(cursor, scope, place, params, errors, tuple(constants), callback, serial)


def is_integer_text(text: str) -> bool:
    """Whether a CAFE_ON_ERROR text may be asked of the compiler as an integer."""
    return ERROR_TEXT.fullmatch(text) is not None and text.count("(") == text.count(")")


def _params(cursor: Cursor) -> tuple[ScannedParam, ...]:
    if cursor.type.kind != TypeKind.FUNCTIONPROTO:
        return ()
    adjusted = list(cursor.type.get_canonical().argument_types())
    return tuple(
        ScannedParam(param.spelling, param.type, kind, tuple(notes_of(param)), _record(kind))
        for param, kind in zip(cursor.get_arguments(), adjusted, strict=True)
    )


def _record(kind: Type) -> ScannedRecord | None:
    pointee = kind.get_pointee().get_canonical()
    if kind.kind != TypeKind.POINTER or pointee.kind != TypeKind.RECORD:
        return None
    members = tuple(_member(field) for field in pointee.get_fields())
    if not any(member.notes for member in members):
        return None
    declaration = pointee.get_declaration()
    return ScannedRecord(_scope(declaration), declaration.kind == CursorKind.UNION_DECL, members)


def _member(field: Cursor) -> ScannedMember:
    kind, notes = field.type.get_canonical(), tuple(notes_of(field))
    offset, hidden = field.get_field_offsetof() // 8, field.access_specifier in HIDDEN
    return ScannedMember(field.spelling, field.type, kind, notes, offset, hidden)


def _constants_in(notes: Iterable[tuple[str, ...]], names: Iterable[str]) -> Iterator[str]:
    indices = {name: index for index, name in enumerate(names)}
    for note in (note for some in notes for note in some):
        kind, _, text = note.partition(":")
        if kind not in COUNTED:
            continue
        try:
            yield from constants_of(text, indices)
        except ExpressionError:
            continue  # said where the expression is parsed


def _scope(cursor: Cursor) -> tuple[str, ...]:
    names: list[str] = []
    parent = cursor.semantic_parent
    while parent is not None and parent.kind != CursorKind.TRANSLATION_UNIT:
        if parent.kind == CursorKind.NAMESPACE:
            names.insert(0, parent.spelling)
        parent = parent.semantic_parent
    return tuple(names)
