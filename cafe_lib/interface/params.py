"""A scanned parameter to a Param: how it is carried and how much of it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from clang.cindex import Type, TypeKind

from cafe_lib.interface.diagnostics import ObstacleError, Problem
from cafe_lib.interface.expression import Expression, ExpressionError, parse_expression
from cafe_lib.interface.model import Carry, Kind, Param, Shape
from cafe_lib.interface.scan import COUNTED, Scan, ScannedParam
from cafe_lib.interface.shapes import NO_CALLBACK, is_function_pointer, shape_of

REFERENCES = (TypeKind.LVALUEREFERENCE, TypeKind.RVALUEREFERENCE)
COUNTABLE = (Kind.UNSIGNED, Kind.SIGNED, Kind.BOOLEAN)
WORD_BYTES = 8
CHOOSE = "say how it is used: CAFE_IN(n), CAFE_OUT(n), CAFE_INOUT(n), CAFE_STR(max) or CAFE_OPAQUE"
NESTED = "pass the inner data as one flat buffer, or mark it CAFE_OPAQUE if the secret code never follows it"
VOID = Shape("void", Kind.VOID, 1, 1, "v")
HANDLE = Shape("void *", Kind.UNSIGNED, WORD_BYTES, WORD_BYTES, "p")


class ParamReader:
    """Reads the parameters of one function; problems go to the list it was given."""

    def __init__(self, scan: Scan, constants: Mapping[str, int], problems: list[Problem]) -> None:
        self.scan = scan
        self.constants = constants
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
            raise ObstacleError(path, "callback", NO_CALLBACK)
        if param.type.kind != TypeKind.POINTER:
            if param.notes:
                raise ObstacleError(path, "annotated, but not a pointer", "remove the annotation")
            shape = shape_of(param.declared, name)
            return Param(param.name, _named(shape.spelling, path), Carry.VALUE, shape)
        if len(param.notes) != 1:
            what = "more than one annotation" if param.notes else "a pointer without an annotation"
            raise ObstacleError(path, what, CHOOSE)
        return self._pointer(param, name, path)

    def _pointer(self, param: ScannedParam, name: str, path: str) -> Param:
        kind, _, text = param.notes[0].partition(":")
        pointee = _pointee(param)
        const = pointee.is_const_qualified()
        named = _named(pointee.spelling, path, strip=False)
        spelling = f"__typeof__({named}) *" if "[" in named else f"{named} *"
        if kind == "opaque":
            return Param(param.name, spelling, Carry.OPAQUE, HANDLE, const=const)
        if kind not in COUNTED:
            raise ObstacleError(path, f"unknown annotation {kind}", CHOOSE)
        if pointee.get_canonical().kind == TypeKind.POINTER and not is_function_pointer(pointee):
            raise ObstacleError(path, "a pointer to a pointer", NESTED)
        void = pointee.get_canonical().kind == TypeKind.VOID
        shape = VOID if void else shape_of(pointee, name)
        carry = Carry(kind)
        if const and carry in (Carry.OUT, Carry.INOUT):
            raise ObstacleError(path, f"const, but {carry.name}", "remove const, or use CAFE_IN(n)")
        if carry is Carry.STRING and not (
            const and shape.size == 1 and shape.kind in (Kind.SIGNED, Kind.UNSIGNED)
        ):
            raise ObstacleError(
                path, "CAFE_STR wants const char *", "a text that is changed is CAFE_INOUT(n)"
            )
        return Param(param.name, spelling, carry, shape, self._count(text, path), const)

    def _count(self, text: str, path: str) -> Expression:
        names = {param.name: index for index, param in enumerate(self.scan.params) if param.name}
        scalars = {name: index for name, index in names.items() if _countable(self.scan.params[index].type)}
        try:
            return parse_expression(text, scalars, self.constants)
        except ExpressionError as error:
            known = ", ".join(scalars) or "there are none"
            mend = f"use integer parameters ({known}), constants, sizeof (type) and integer operators"
            raise ObstacleError(path, f"size ({text}): {error}", mend) from error


def _countable(kind: Type) -> bool:
    if kind.get_canonical().kind == TypeKind.RECORD or kind.get_size() > WORD_BYTES:
        return False
    try:
        return shape_of(kind, "").kind in COUNTABLE
    except ObstacleError:
        return False


def _pointee(param: ScannedParam) -> Type:
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
