"""A scanned parameter to a Param: how it is carried and how much of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from clang.cindex import Type, TypeKind

from cafe_lib.interface.constants import Wanted
from cafe_lib.interface.diagnostics import ObstacleError, Problem
from cafe_lib.interface.expression import Expression, ExpressionError, Number, parse_expression
from cafe_lib.interface.model import Carry, Field, Kind, Param, Shape
from cafe_lib.interface.scan import COUNTED, Scan, ScannedMember, ScannedParam, ScannedRecord
from cafe_lib.interface.shapes import BY_NAME, is_function_pointer, shape_of

REFERENCES = (TypeKind.LVALUEREFERENCE, TypeKind.RVALUEREFERENCE)
COUNTABLE = (Kind.UNSIGNED, Kind.SIGNED, Kind.BOOLEAN)
COPIED = ("in", "out", "inout")
WORD_BYTES = 8
MAX_DEEP_BYTES = 4096
CHOOSE = "say how it is used: CAFE_IN(n), CAFE_OUT(n), CAFE_INOUT(n), CAFE_STR(max) or CAFE_OPAQUE"
NESTED = "pass the inner data as one flat buffer, or mark it CAFE_OPAQUE if the secret code never follows it"
VOID = Shape("void", Kind.VOID, 1, 1, "v")
HANDLE = Shape("void *", Kind.UNSIGNED, WORD_BYTES, WORD_BYTES, "p")


def constants_at(scope: tuple[str, ...], values: Mapping[Wanted, int]) -> dict[str, int]:
    """Select the values of names as they are looked up in ``scope``."""
    return {text: value for (place, text), value in values.items() if place == scope}


@dataclass(frozen=True, slots=True)
class Names:
    """What a size expression may use: ``scalars`` by index, and constants. ``whose`` they are, in words."""

    scalars: Mapping[str, int]
    constants: Mapping[str, int]
    whose: str


class ParamReader:
    """Reads the parameters of one function; problems go to the list it was given."""

    def __init__(self, scan: Scan, values: Mapping[Wanted, int], problems: list[Problem]) -> None:
        self.scan = scan
        self.values = values
        self.names = Names(_scalars(scan.params), constants_at(scan.scope, values), "integer parameters")
        self.problems = problems

    def read(self, index: int) -> Param | None:
        """Read a parameter, or None after adding a problem."""
        param = self.scan.params[index]
        name = param.name or f"parameter {index + 1}"
        try:
            return self._read(param, name)
        except ObstacleError as obstacle:
            self.problems.append(
                Problem(self.scan.place, self.scan.display, obstacle.path, obstacle.what, obstacle.mend)
            )
            return None

    def _read(self, param: ScannedParam, name: str) -> Param:
        path = f"{name}: {param.declared.spelling}"
        if param.type.kind in REFERENCES:
            raise ObstacleError(
                path, "a reference", "take a pointer, with CAFE_IN(1), CAFE_OUT(1) or CAFE_INOUT(1)"
            )
        if "callback" in param.notes or is_function_pointer(param.type):
            raise ObstacleError(path, "a function pointer", BY_NAME)
        if param.type.kind != TypeKind.POINTER:
            if param.notes:
                raise ObstacleError(path, "annotated, but not a pointer", "remove the annotation")
            shape = shape_of(param.declared, name)
            return Param(param.name, _named(shape.spelling, path), Carry.VALUE, shape)
        if param.record is None or _kind_of(param) not in COPIED:
            return read_pointer(param, name, self.names)
        if self.scan.callback:
            what = "a callback takes no struct with annotated pointers"
            raise ObstacleError(path, what, "pass what they point to as parameters of their own")
        return self._deep(param, param.record, name, path)

    def _deep(self, param: ScannedParam, record: ScannedRecord, name: str, path: str) -> Param:
        """Read a struct whose pointers are followed, too."""
        _check_record(record, name, path)
        pointers = [member for member in record.members if member.notes]
        read = read_pointer(param, name, self.names, {member.name for member in pointers})
        if read.carry is Carry.OUT:
            mend = "its pointers say where the buffers are, so it comes in, too: CAFE_INOUT(1)"
            raise ObstacleError(path, "CAFE_OUT of a struct with annotated pointers", mend)
        if read.count != Number(1):
            mend = "pass one such struct: CAFE_IN(1) or CAFE_INOUT(1)"
            raise ObstacleError(path, "several structs with annotated pointers", mend)
        if read.shape.size > MAX_DEEP_BYTES:
            what = (
                f"a struct with annotated pointers of {read.shape.size} bytes, {MAX_DEEP_BYTES} is the most"
            )
            raise ObstacleError(path, what, "move its arrays behind pointers")
        countable = [member for member in record.members if member.name and _countable(member.type)]
        names = Names(
            {member.name: index for index, member in enumerate(countable)},
            constants_at(record.scope, self.values),
            "the struct's integers",
        )
        fields = [_field(member, f"{name}.{member.name}", names) for member in pointers]
        scalars = [Param(one.name, "", Carry.VALUE, shape_of(one.type, "")) for one in countable]
        return replace(read, fields=tuple(fields), scalars=tuple(scalars))


def _field(member: ScannedMember, path: str, names: Names) -> Field:
    if member.type.kind != TypeKind.POINTER:
        raise ObstacleError(
            f"{path}: {member.declared.spelling}", "annotated, but not a pointer", "remove it"
        )
    read = read_pointer(member, path, names)
    return Field(
        member.name, read.spelling, read.carry, read.shape, read.count, read.const, offset=member.offset
    )


def _check_record(record: ScannedRecord, name: str, path: str) -> None:
    if record.union:
        raise ObstacleError(path, "a union with annotated pointers", "use a struct")
    for member in record.members:
        if member.hidden:
            what = "a private member beside annotated pointers"
            raise ObstacleError(f"{name}.{member.name}: {member.declared.spelling}", what, "make it public")


def read_pointer(
    declared: ScannedParam | ScannedMember, name: str, names: Names, followed: Collection[str] = ()
) -> Param:
    """Read what an annotated pointer stands for. Raises ObstacleError."""
    path = f"{name}: {declared.declared.spelling}"
    if len(declared.notes) != 1:
        what = "more than one annotation" if declared.notes else "a pointer without an annotation"
        raise ObstacleError(path, what, CHOOSE)
    kind, _, text = declared.notes[0].partition(":")
    pointee = _pointee(declared)
    named = _named(pointee.spelling, path, strip=False)
    spelling = f"__typeof__({named}) *" if "[" in named else f"{named} *"
    const = pointee.is_const_qualified()
    if kind == "opaque":
        return Param(declared.name, spelling, Carry.OPAQUE, HANDLE, const=const)
    if kind not in COUNTED:
        raise ObstacleError(path, f"unknown annotation {kind}", CHOOSE)
    if is_function_pointer(declared.type):
        raise ObstacleError(path, "a function pointer", BY_NAME)
    if pointee.get_canonical().kind == TypeKind.POINTER:
        raise ObstacleError(path, "a pointer to a pointer", NESTED)
    void = pointee.get_canonical().kind == TypeKind.VOID
    shape = VOID if void else shape_of(pointee, name, followed)
    carry = Carry(kind)
    _check_use(carry, shape, path, const=const)
    return Param(declared.name, spelling, carry, shape, _count(text, path, names), const)


def _check_use(carry: Carry, shape: Shape, path: str, *, const: bool) -> None:
    if const and carry in (Carry.OUT, Carry.INOUT):
        raise ObstacleError(path, f"const, but {carry.name}", "remove const, or use CAFE_IN(n)")
    text = const and shape.size == 1 and shape.kind in (Kind.SIGNED, Kind.UNSIGNED)
    if carry is Carry.STRING and not text:
        raise ObstacleError(path, "CAFE_STR wants const char *", "a text that is changed is CAFE_INOUT(n)")


def _count(text: str, path: str, names: Names) -> Expression:
    try:
        return parse_expression(text, names.scalars, names.constants)
    except ExpressionError as error:
        known = ", ".join(names.scalars) or "there are none"
        mend = f"use {names.whose} ({known}), constants, sizeof (type) and integer operators"
        raise ObstacleError(path, f"size ({text}): {error}", mend) from error


def _scalars(params: tuple[ScannedParam, ...]) -> dict[str, int]:
    return {param.name: i for i, param in enumerate(params) if param.name and _countable(param.type)}


def _kind_of(param: ScannedParam) -> str:
    return param.notes[0].partition(":")[0] if param.notes else ""


def _countable(kind: Type) -> bool:
    if kind.get_canonical().kind == TypeKind.RECORD or kind.get_size() > WORD_BYTES:
        return False
    try:
        return shape_of(kind, "").kind in COUNTABLE
    except ObstacleError:
        return False


def _pointee(param: ScannedParam | ScannedMember) -> Type:
    """Prefer the type as written; where a typedef of a pointer or array hides it, take the real one."""
    written = param.declared.get_pointee()
    if written.kind != TypeKind.INVALID:
        return written
    element = param.declared.get_array_element_type()
    return element if element.kind != TypeKind.INVALID else param.type.get_pointee()


def _named(spelling: str, path: str, *, strip: bool = True) -> str:
    if "unnamed" in spelling or "anonymous" in spelling:
        raise ObstacleError(path, "a type without a name", "give the type a name")
    return re.sub(r"^(const |volatile )+", "", spelling) if strip else spelling  # a copy may be changed
