"""Pieces of C that public and secret stubs share: names, size expressions, padding tables, layout checks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cafe_lib.errors import InterfaceError
from cafe_lib.interface.expression import Binary, Choice, Expression, Name, Number, Unary
from cafe_lib.interface.model import Carry, Function, Interface, Kind, Param

CHECKED = {"+": "add", "-": "sub", "*": "mul", "/": "div", "%": "mod", "<<": "shl", ">>": "shr"}
HEADER_NAME = re.compile(r"[\w][\w.+ -]{0,254}")

SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,1000}")


def includes(interface: Interface) -> list[str]:
    """Include the developer's headers, by name; the caller gives the include directories."""
    for name in interface.headers:
        if not HEADER_NAME.fullmatch(name):
            raise InterfaceError(f"header name {name!r}", hint="use letters, digits and . _ - + only")
    return [f'#include "{name}"' for name in interface.headers]


def local(index: int, param: Param) -> str:
    """Make a name that collides neither with the header's macros nor with the stub's own names."""
    return f"p{index}_{param.name}" if param.name else f"p{index}"


def quiet(interface: Interface) -> list[str]:
    """Keep warnings that a project may have turned into errors away from generated casts."""
    names = ["pragmas", "cast-qual", "conversion", "sign-conversion"]
    if interface.language == "c++":
        names += ["old-style-cast", "useless-cast", "zero-as-null-pointer-constant"]
    else:
        names += ["array-parameter", "vla-parameter"]  # declared as arrays, defined as the pointers they are
    return [f'#pragma GCC diagnostic ignored "-W{name}"' for name in names]


def symbol(function: Function) -> str:
    """Return the linker's name, which is also a C identifier."""
    if not SYMBOL.fullmatch(function.symbol):
        raise InterfaceError(f"symbol {function.symbol!r} cannot be exported")
    return function.symbol


def in_scope(function: Function, lines: Sequence[str]) -> list[str]:
    """Wrap lines in the function's namespaces: there its types are spelled as in the header."""
    opening = [f"namespace {name} {{" for name in function.scope]
    return [*opening, *lines, *("}" for _ in function.scope)]


def prototype(function: Function) -> str:
    """Write the definition's head, as in the header."""
    params = ", ".join(_declare(param, local(i, param)) for i, param in enumerate(function.params))
    result = "void" if function.result is None else function.result.spelling
    return f"{result} {function.name}({params or 'void'}){' noexcept' if function.noexcept else ''}"


def _declare(param: Param, name: str) -> str:
    return f"{param.spelling}{name}" if param.spelling.endswith("*") else f"{param.spelling} {name}"


def size_text(expression: Expression, names: Sequence[str], function: Function) -> str:
    """Write a size expression as calls of cafe_size.h; ``names`` are the parameters' values in C."""
    match expression:
        case Number(value=value):
            return f"{value}ul"
        case Name(parameter=index):
            signed = function.params[index].shape.kind is Kind.SIGNED
            return (
                f"cafe_size_signed(&bad, (int64_t){names[index]})" if signed else f"(uint64_t){names[index]}"
            )
        case Unary(operator=symbol, operand=inner):
            return f"(uint64_t)({symbol}{size_text(inner, names, function)})"
        case Binary(operator=symbol, left=left, right=right):
            return _binary(symbol, size_text(left, names, function), size_text(right, names, function))
        case Choice(condition=condition, yes=yes, no=no):
            parts = [size_text(part, names, function) for part in (condition, yes, no)]
            return f"({parts[0]} ? {parts[1]} : {parts[2]})"


def _binary(operator: str, left: str, right: str) -> str:
    if operator in CHECKED:
        return f"cafe_size_{CHECKED[operator]}(&bad, {left}, {right})"
    return f"(uint64_t)({left} {operator} {right})"


def layout_checks(function: Function) -> list[str]:
    """Both compilers must see the sizes that the interface was read with."""
    shapes = [param.shape for param in function.params if param.carry is not Carry.OPAQUE]
    shapes += [] if function.result is None else [function.result]
    sized = dict.fromkeys((shape.spelling, shape.size) for shape in shapes if shape.kind is not Kind.VOID)
    return [f"CAFE_SAME(sizeof({spelling}), {size});" for spelling, size in sized]
