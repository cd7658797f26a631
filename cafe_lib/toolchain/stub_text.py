"""Pieces of C that public and secret stubs share: names, size expressions, padding tables, layout checks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cafe_lib.errors import InterfaceError
from cafe_lib.interface.expression import Binary, Choice, Expression, Name, Number, Unary
from cafe_lib.interface.layout import fixed_part
from cafe_lib.interface.model import Carry, Function, Hole, Interface, Kind, Param, Shape

CHECKED = {"+": "add", "-": "sub", "*": "mul", "/": "div", "%": "mod", "<<": "shl", ">>": "shr"}
MAX_INLINE_HOLES = 8
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
    names = ["pragmas", "cast-qual", "conversion", "sign-conversion", "pedantic"]
    if interface.language == "c++":
        names += ["old-style-cast", "useless-cast", "zero-as-null-pointer-constant"]
        names += ["missing-field-initializers", "shadow"]  # a struct and a function may share a name
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


def size_text(expression: Expression, names: Sequence[str], scalars: Sequence[Param]) -> str:
    """Write a size expression as calls of cafe_size.h; ``names`` are the values of ``scalars`` in C."""
    match expression:
        case Number(value=value):
            return f"{value}ul"
        case Name(parameter=index):
            if scalars[index].shape.kind is Kind.SIGNED:
                return f"cafe_size_signed(&bad, (int64_t){names[index]})"
            return f"(uint64_t){names[index]}"
        case Unary(operator=symbol, operand=inner):
            return f"(uint64_t)({symbol}{size_text(inner, names, scalars)})"
        case Binary(operator=symbol, left=left, right=right):
            return _binary(symbol, size_text(left, names, scalars), size_text(right, names, scalars))
        case Choice(condition=condition, yes=yes, no=no):
            parts = [size_text(part, names, scalars) for part in (condition, yes, no)]
            return f"({parts[0]} ? {parts[1]} : {parts[2]})"


def _binary(operator: str, left: str, right: str) -> str:
    if operator in CHECKED:
        return f"cafe_size_{CHECKED[operator]}(&bad, {left}, {right})"
    return f"(uint64_t)({left} {operator} {right})"


def layout_checks(function: Function) -> list[str]:
    """Both compilers must see the sizes that the interface was read with."""
    params = [param for param in function.params if param.carry is not Carry.OPAQUE]
    shapes = [param.shape for param in params]
    shapes += [field.shape for param in params for field in param.fields if field.carry is not Carry.OPAQUE]
    shapes += [] if function.result is None else [function.result]
    sized = dict.fromkeys(
        (_unqualified(shape), shape.size) for shape in shapes if shape.kind is not Kind.VOID
    )
    lines = [f"CAFE_SAME(sizeof({spelling}), {size});" for spelling, size in sized]
    return lines + [
        f"CAFE_SAME(offsetof({_unqualified(param.shape)}, {field.name}), {field.offset});"
        for param in params
        for field in param.fields
    ]


def _unqualified(shape: Shape) -> str:
    return shape.spelling.removeprefix("const ")


def fixed_struct(name: str, function: Function) -> list[str]:
    """Declare the fixed part of a frame as its reader sees it. Needs a parameter."""
    members = [f"    {_member(param)} {local(i, param)};" for i, param in enumerate(function.params)]
    layout = fixed_part(function)
    checks = [
        f"CAFE_SAME(offsetof(struct {name}, {local(i, param)}), {layout.offsets[i]});"
        for i, param in enumerate(function.params)
    ]
    checks.append(f"CAFE_SAME(sizeof(struct {name}), {layout.size});")
    return [f"struct {name} {{", *members, "};", *checks]


def _member(param: Param) -> str:
    if param.carry is not Carry.VALUE:
        return "uint64_t"
    return "uint8_t" if param.shape.kind is Kind.BOOLEAN else param.spelling


def fixed_names(function: Function) -> list[str]:
    """Name the values of a fixed part that came from the other side, as sizes may use them."""
    return [
        f"(fixed.{local(i, param)} != 0)"
        if param.carry is Carry.VALUE and param.shape.kind is Kind.BOOLEAN
        else f"fixed.{local(i, param)}"
        for i, param in enumerate(function.params)
    ]


def error_value(function: Function) -> list[str]:
    """Declare ``result`` as what a failed call returns."""
    if function.result is None:
        return []
    spelling = function.result.spelling
    if function.on_error:
        return [f"{spelling} result = ({spelling})({function.on_error});"]
    return [f"{spelling} result;", "__builtin_memset(&result, 0, sizeof result);"]


def clear(place: str, count: str, shape: Shape, holes: tuple[Hole, ...]) -> list[str]:
    """Zero bits that hold no value: going out, they may be of secret memory; coming in, a bool is 0 or 1."""
    if not holes:
        return []
    if count == "1" and len(holes) <= MAX_INLINE_HOLES:
        rows = [(plus(place, hole.offset), hole) for hole in holes]
        return [f"cafe_keep({at}, {hole.count}, {hole.mask});" for at, hole in rows]
    return [
        "{",
        f"    static const struct cafe_hole holes[] = {{{hole_rows(holes)}}};",
        f"    cafe_clear_padding({place}, {count}, {shape.size}, holes, {len(holes)});",
        "}",
    ]


def plus(place: str, offset: int) -> str:
    """Write an address ``offset`` bytes on."""
    return f"{place} + {offset}" if offset else place


def hole_rows(holes: tuple[Hole, ...]) -> str:
    """Write the rows of a table of struct cafe_hole."""
    return ", ".join(f"{{{hole.offset}, {hole.count}, {hole.mask}}}" for hole in holes)


def block(head: str, lines: Sequence[str]) -> list[str]:
    """Put lines in braces after ``head``; nothing if there are none."""
    return [f"{head} {{", *indent(lines), "}"] if lines else []


def indent(lines: Sequence[str]) -> list[str]:
    """Move lines in by one level."""
    return [f"    {line}" for line in lines]
