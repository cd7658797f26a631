"""A scanned declaration to a Function, or to the problems that forbid it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from clang.cindex import ExceptionSpecificationKind, Type, TypeKind

from cafe_lib.interface.constants import Wanted
from cafe_lib.interface.diagnostics import ObstacleError, Problem
from cafe_lib.interface.layout import MAX_FIXED_BYTES, MAX_PARAMS, fixed_part_of
from cafe_lib.interface.model import Carry, Function, Kind, Param, Shape
from cafe_lib.interface.params import ParamReader, constants_at
from cafe_lib.interface.scan import Scan
from cafe_lib.interface.shapes import shape_of

NUMERIC = (Kind.UNSIGNED, Kind.SIGNED, Kind.BOOLEAN)
DECIMAL = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4})?[fFlL]?")
SPECIAL = {"NAN": '__builtin_nan("")', "INFINITY": "__builtin_inf()", "-INFINITY": "-__builtin_inf()"}
NOEXCEPT = (ExceptionSpecificationKind.BASIC_NOEXCEPT, ExceptionSpecificationKind.DYNAMIC_NONE)


def read_function(scan: Scan, values: Mapping[Wanted, int], problems: list[Problem]) -> Function | None:
    """Make the function, or None after adding to ``problems``."""
    before = len(problems)
    _check_prototype(scan, problems)
    reader = ParamReader(scan, values, problems)
    params = tuple(filter(None, (reader.read(index) for index in range(len(scan.params)))))
    result = _result(scan, problems)
    if len(problems) == before:
        _check_frame(scan, params, problems)
    on_error = _on_error(scan, result, constants_at(scan.scope, values), problems)
    if len(problems) > before:
        return None
    noexcept = scan.cursor.exception_specification_kind in NOEXCEPT
    name, symbol = scan.cursor.spelling, scan.cursor.mangled_name or scan.cursor.spelling
    return Function(
        name, scan.scope, symbol, params, result, on_error, noexcept, scan.place, serial=scan.serial
    )


def _check_prototype(scan: Scan, problems: list[Problem]) -> None:
    kind = scan.cursor.type
    if kind.kind != TypeKind.FUNCTIONPROTO:
        problems.append(Problem(scan.place, scan.display, "", "no prototype", "write (void)"))
    elif kind.is_function_variadic():
        mend = "pass a fixed number of parameters, or a buffer"
        problems.append(Problem(scan.place, scan.display, "...", "variadic", mend))


def _result(scan: Scan, problems: list[Problem]) -> Shape | None:
    declared: Type = scan.cursor.result_type
    canonical = declared.get_canonical()
    if canonical.kind == TypeKind.VOID:
        return None
    if canonical.kind in (TypeKind.POINTER, TypeKind.LVALUEREFERENCE, TypeKind.RVALUEREFERENCE):
        mend = "write the data to a CAFE_OUT(n) parameter, or return an integer handle"
        what = (
            f"a pointer into the {'program' if scan.callback else 'enclave'} means nothing on the other side"
        )
        problems.append(Problem(scan.place, scan.display, f"result: {declared.spelling}", what, mend))
        return None
    try:
        return shape_of(declared, "result")
    except ObstacleError as obstacle:
        problems.append(Problem(scan.place, scan.display, obstacle.path, obstacle.what, obstacle.mend))
        return None


def _check_frame(scan: Scan, params: tuple[Param, ...], problems: list[Problem]) -> None:
    size = fixed_part_of(params).size
    if len(params) > MAX_PARAMS:
        what = f"{len(params)} parameters, {MAX_PARAMS} is the most"
        problems.append(Problem(scan.place, scan.display, "", what, "put them in a struct"))
    if size > MAX_FIXED_BYTES:
        biggest = max(params, key=lambda param: param.shape.size if param.carry is Carry.VALUE else 0)
        what = f"the parameters take {size} bytes by value, {MAX_FIXED_BYTES} is the most"
        mend = "pass the struct by pointer: CAFE_IN(1)"
        problems.append(Problem(scan.place, scan.display, biggest.name, what, mend))


def _on_error(
    scan: Scan, result: Shape | None, constants: Mapping[str, int], problems: list[Problem]
) -> str | None:
    """C text made of checked numbers only; "" means void or all zero."""
    if not scan.errors:
        return None
    text = scan.errors[0]
    value = None if len(scan.errors) > 1 else _error_value(text, result, constants)
    if value is None:
        what = f"CAFE_ON_ERROR({text}) is not one constant of the result's type"
        mend = "give one integer or floating constant; () for void, {0} for a struct"
        problems.append(Problem(scan.place, scan.display, "result", what, mend))
    return value


def _error_value(text: str, result: Shape | None, constants: Mapping[str, int]) -> str | None:
    if result is None:
        return "" if text in ("", "0") else None
    if result.kind is Kind.RECORD:
        return "" if text in ("0", "{0}", "{}") else None
    if result.kind is Kind.FLOATING and (text in SPECIAL or DECIMAL.fullmatch(text)):
        return SPECIAL.get(text) or _decimal(text)
    value = constants.get(text)
    if value is None:
        return None
    if result.kind in NUMERIC and not _fits(value, result):
        return None
    return str(value) if result.kind is Kind.FLOATING else _integer(value)


def _decimal(text: str) -> str | None:
    value = float(text.rstrip("fFlL"))
    return repr(value) if math.isfinite(value) else None


def _fits(value: int, result: Shape) -> bool:
    if result.kind is Kind.BOOLEAN:
        return value in (0, 1)
    signed = result.kind is Kind.SIGNED
    most = 1 << (8 * result.size - signed)
    return (-most if signed else 0) <= value < most


def _integer(value: int) -> str:
    """Write a literal whose type holds the value (the most negative one has none in C)."""
    if value < 0:
        return f"({value + 1}l - 1)"
    return f"{value}ul"
