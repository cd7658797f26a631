"""What the types of an interface are made of, for bindings: struct members, enum values, signatures.

The model of an interface knows how a type is copied; a binding in another language has to write the type
down. A record that other languages cannot lay out as C does (bit-fields, packed, long double) has no members.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clang.cindex import Cursor, CursorKind, Type, TypeKind

from cafe_lib.interface.layout import round_up
from cafe_lib.interface.model import Kind
from cafe_lib.interface.shapes import MAX_NESTING, SIGNED, UNSIGNED
from cafe_lib.interface.translation import Source, declarations, notes_of, read_unit

WORD_BYTES = 8
MARKED = {"secret", "callback"}
TAG = re.compile(r"^(?:(?:const|volatile|struct|union|enum|class)\s+)+")
NAMED = re.compile(r"[A-Za-z_]\w*(?:::[A-Za-z_]\w*)*")


@dataclass(frozen=True, slots=True)
class Scalar:
    """An integer, bool or floating type of at most 8 bytes; ``text``: it is plain ``char``."""

    kind: Kind
    size: int
    text: bool = False


@dataclass(frozen=True, slots=True)
class Array:
    """``count`` elements in place."""

    element: CType
    count: int


@dataclass(frozen=True, slots=True)
class Pointer:
    """``target`` is None for void and for what has no size."""

    target: CType | None
    const: bool


@dataclass(frozen=True, slots=True)
class Named:
    """A record or enumeration, by its name in Records."""

    name: str


@dataclass(frozen=True, slots=True)
class Foreign:
    """A type that only C writes down: long double, complex, vector, 128 bits. Sizes in bytes."""

    spelling: str
    size: int
    align: int


CType = Scalar | Array | Pointer | Named | Foreign


@dataclass(frozen=True, slots=True)
class Member:
    """A member at ``offset`` bytes; its name is "" for an unnamed struct or union."""

    name: str
    type: CType
    offset: int


@dataclass(frozen=True, slots=True)
class Record:
    """A struct or union. ``members`` is None if only its bytes can be shown."""

    name: str
    spelling: str
    union: bool
    size: int
    align: int
    members: tuple[Member, ...] | None


@dataclass(frozen=True, slots=True)
class Enumeration:
    """An enum; its constants by name."""

    name: str  # no identifier if the enum has no name
    type: Scalar
    constants: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """A function's types; ``result`` is None for void. ``text``: the declaration as people read it."""

    params: tuple[CType, ...]
    result: CType | None
    text: str


@dataclass(slots=True)
class Records:
    """All types that an interface's functions use, inner records first; signatures by symbol."""

    records: dict[str, Record] = field(default_factory=dict)
    enumerations: dict[str, Enumeration] = field(default_factory=dict)
    signatures: dict[str, Signature] = field(default_factory=dict)

    def sizes(self, kind: CType) -> tuple[int, int]:
        """Size and alignment in bytes."""
        match kind:
            case Scalar(size=size):
                return size, size
            case Array(element=element, count=count):
                size, align = self.sizes(element)
                return size * count, align
            case Named(name=name) if name in self.records:
                return self.records[name].size, self.records[name].align
            case Named(name=name):
                return self.sizes(self.enumerations[name].type)
            case Foreign(size=size, align=align):
                return size, align
        return WORD_BYTES, WORD_BYTES


def read_records(
    paths: Sequence[Path], include_dirs: Sequence[Path] = (), language: str = "c", flags: Sequence[str] = ()
) -> Records:
    """Read headers that `parse_headers` has accepted. Raises InterfaceError if libclang gives up."""
    unit = read_unit(Source(tuple(paths), language, tuple(include_dirs), tuple(flags)))
    reader = _Reader()
    for cursor in declarations(unit):
        if cursor.kind == CursorKind.ENUM_DECL and cursor.is_definition():
            reader.read(cursor.type, f"#{cursor.location.offset}", 0)
        elif cursor.kind == CursorKind.FUNCTION_DECL and MARKED.intersection(notes_of(cursor)):
            reader.add_function(cursor)
    return reader.found


class _Reader:
    """Describes each record and enum once."""

    def __init__(self) -> None:
        self.found = Records()
        self.names: dict[str, str] = {}  # by canonical spelling

    def add_function(self, cursor: Cursor) -> None:
        adjusted = cursor.type.get_canonical().argument_types()  # an array parameter is a pointer
        params = tuple(
            self.read(kind, f"{cursor.spelling}_{param.spelling}", 0)
            for param, kind in zip(cursor.get_arguments(), adjusted, strict=True)
        )
        void = cursor.result_type.get_canonical().kind == TypeKind.VOID
        result = None if void else self.read(cursor.result_type, f"{cursor.spelling}_result", 0)
        symbol = cursor.mangled_name or cursor.spelling
        self.found.signatures.setdefault(symbol, Signature(params, result, declaration_text(cursor)))

    def read(self, declared: Type, path: str, depth: int) -> CType:
        """Describe a type; ``path`` names it if it has no name of its own."""
        kind = declared.get_canonical()
        name = kind.kind.name
        if name == "CONSTANTARRAY":
            return Array(self.read(kind.element_type, path, depth), kind.element_count)
        if name == "POINTER":
            return self._pointer(kind.get_pointee(), path)
        if name == "ENUM":
            return self._enumeration(kind, path)
        if name == "RECORD" and depth < MAX_NESTING:
            return self._record(kind, path, depth)
        return _scalar(kind) or Foreign(declared.spelling, kind.get_size(), kind.get_align())

    def _pointer(self, pointee: Type, path: str) -> CType:
        whole = pointee.get_size() > 0 and pointee.get_canonical().kind != TypeKind.VOID
        return Pointer(self.read(pointee, path, 1) if whole else None, pointee.is_const_qualified())

    def _enumeration(self, kind: Type, path: str) -> CType:
        declaration = kind.get_declaration()
        under = _scalar(declaration.enum_type.get_canonical())
        if under is None:
            return Foreign(kind.spelling, kind.get_size(), kind.get_align())
        name = self._name(kind, path)
        constants = tuple(
            (child.spelling, child.enum_value)
            for child in declaration.get_children()
            if child.kind == CursorKind.ENUM_CONSTANT_DECL
        )
        self.found.enumerations.setdefault(name, Enumeration(name, under, constants))
        return Named(name)

    def _record(self, kind: Type, path: str, depth: int) -> CType:
        known = _spelling(kind) in self.names
        name = self._name(kind, path)
        if not known:
            union = kind.get_declaration().kind == CursorKind.UNION_DECL
            size, align = kind.get_size(), kind.get_align()
            members = tuple(self._member(member, name, depth) for member in kind.get_fields())
            plain = not any(member.is_bitfield() for member in kind.get_fields())
            whole = plain and self._as_in_c(members, union, size, align)
            spelling = TAG.sub("", kind.spelling) if NAMED.fullmatch(TAG.sub("", kind.spelling)) else ""
            self.found.records[name] = Record(name, spelling, union, size, align, members if whole else None)
        return Named(name)

    def _member(self, member: Cursor, record: str, depth: int) -> Member:
        name = member.spelling if member.spelling.isidentifier() else ""
        offset = member.get_field_offsetof() // 8
        path = f"{record}_{name or f'at_{offset}'}"
        return Member(name, self.read(member.type, path, depth + 1), offset)

    def _as_in_c(self, members: tuple[Member, ...], union: bool, size: int, align: int) -> bool:  # noqa: FBT001
        """Whether laying the members out in order gives just this record."""
        place, strictest = 0, 1
        for member in members:
            if isinstance(_innermost(member.type), Foreign) or self._unfinished(member.type):
                return False
            bytes_, strict = self.found.sizes(member.type)
            start = 0 if union else round_up(place, strict)
            if start != member.offset:
                return False
            place, strictest = max(place, start + bytes_), max(strictest, strict)
        return (round_up(place, strictest), strictest) == (size, align) and size > 0

    def _unfinished(self, kind: CType) -> bool:
        inner = _innermost(kind)
        return (
            isinstance(inner, Named)
            and inner.name not in self.found.records
            and inner.name not in self.found.enumerations
        )

    def _name(self, kind: Type, path: str) -> str:
        spelling = _spelling(kind)
        if spelling not in self.names:
            bare = TAG.sub("", kind.spelling)
            wanted = bare.replace("::", "_") if NAMED.fullmatch(bare) else path
            while wanted and wanted in self.names.values():
                wanted += "_"  # `struct a` and a typedef `a` of another struct
            self.names[spelling] = wanted
        return self.names[spelling]


def _spelling(kind: Type) -> str:
    """Tell types apart, const or not; libclang gives unnamed ones their place."""
    return str(kind.get_declaration().get_usr() or TAG.sub("", kind.spelling))


def _innermost(kind: CType) -> CType:
    while isinstance(kind, Array):
        kind = kind.element
    return kind


def _scalar(kind: Type) -> Scalar | None:
    name, size = kind.kind.name, kind.get_size()
    if name == "BOOL":
        return Scalar(Kind.BOOLEAN, size)
    if name in ("FLOAT", "DOUBLE"):
        return Scalar(Kind.FLOATING, size)
    if size > WORD_BYTES or name not in UNSIGNED | SIGNED:
        return None
    return Scalar(Kind.UNSIGNED if name in UNSIGNED else Kind.SIGNED, size, name in ("CHAR_S", "CHAR_U"))


def declaration_text(cursor: Cursor) -> str:
    """Spell a declaration with its annotations, on one line."""
    params = (
        " ".join([_declared(param), *(_macro(note) for note in notes_of(param))])
        for param in cursor.get_arguments()
    )
    error = [_macro(note) for note in notes_of(cursor) if note.startswith("error:")]
    head = " ".join([*error, cursor.result_type.spelling, cursor.spelling])
    return f"{head}({', '.join(params) or 'void'})".replace("CAFE_ERROR", "CAFE_ON_ERROR")


def _declared(param: Cursor) -> str:
    spelling = param.type.spelling
    if "(*)" in spelling:
        return str(spelling.replace("(*)", f"(*{param.spelling})"))
    if "[" in spelling:
        start = spelling.index("[")
        return f"{spelling[:start].rstrip()} {param.spelling}{spelling[start:]}"
    return f"{spelling}{'' if spelling.endswith('*') else ' '}{param.spelling}".rstrip()


def _macro(note: str) -> str:
    kind, colon, text = note.partition(":")
    return f"CAFE_{kind.upper()}{f'({text})' if colon else ''}"
