"""The public side of callbacks: a function per callback that runs the program's own on private copies.

It distrusts the frame as the secret side does: words, sizes and positions are checked, everything is copied
once before the program's function sees it.
"""

from __future__ import annotations

from cafe_lib.interface.layout import AREA_ALIGN, OUT_ALIGN, fixed_part
from cafe_lib.interface.model import Carry, Function, Interface, Kind, Param
from cafe_lib.toolchain.stub_buffers import Buffer, buffers, coming_in, going_out, only_out
from cafe_lib.toolchain.stub_text import (
    block,
    clear,
    fixed_names,
    fixed_struct,
    indent,
    layout_checks,
    local,
    size_text,
    symbol,
)


def callback_table(interface: Interface) -> list[str]:
    """Define ``callbacks``, each with the program's symbol of that name, if there is one."""
    declarations, rows = [], []
    for number, callback in enumerate(interface.callbacks):
        weak = '__attribute__((weak, visibility("default")))'
        declarations.append(f'CAFE_C void cafe_program_{number}(void) __asm__("{symbol(callback)}") {weak};')
        serve = "::".join((*callback.scope, f"cafe_serve_{number}"))
        rows.append(f'    {{"{callback.display}", cafe_program_{number}, {serve}}},')
    if not rows:
        return []
    return [*declarations, "static struct cafe_callback callbacks[] = {", *rows, "};"]


def serve_lines(number: int, function: Function) -> list[str]:
    """Define what serves one callback."""
    fixed = fixed_struct(f"cafe_asked_{number}", function) if function.params else []
    call = [*block("CAFE_TRY", _call(function)), "CAFE_CATCH(call)"]
    ready = [
        *_take(function),
        *block("if (cafe_serve_sound(&serve))", call),
        "cafe_serve_close(&serve);",
    ]
    body = [
        "struct cafe_serve serve;",
        f"cafe_serve_open(&serve, call, {fixed_part(function).size});",
        *_read_fixed(number, function),
        *_place(function),
        *block("if (cafe_serve_ready(&serve))", ready),
    ]
    head = f"static void cafe_serve_{number}(struct cafe_call *call, void (*function)(void)) {{"
    return [*layout_checks(function), *fixed, head, *indent(body), "}"]


def _read_fixed(number: int, function: Function) -> list[str]:
    if not function.params:
        return []
    lines = [f"struct cafe_asked_{number} fixed;", "cafe_serve_copy(&serve, 0, &fixed, sizeof fixed);"]
    names = fixed_names(function)
    counts = []
    for index, param in enumerate(function.params):
        if param.carry is Carry.VALUE and param.shape.kind is not Kind.BOOLEAN:
            lines += clear(f"(uint8_t *)&fixed.{local(index, param)}", "1", param.shape, param.shape.flags)
    for buffer in buffers(function):
        counts += _count(buffer, names[int(buffer.label)], names, function.params)
    if not counts:
        return lines
    return [*lines, "bool bad = false;", *counts, "serve.bad |= bad;"]


def _count(buffer: Buffer, word: str, names: list[str], scalars: tuple[Param, ...]) -> list[str]:
    label, param = buffer.label, buffer.param
    if param.count is None:
        return []
    size = size_text(param.count, names, scalars)
    if param.carry is Carry.STRING:
        return [f"const uint64_t n{label} = {word};", f"bad |= n{label} != 0 && n{label} > {size};"]
    lines = [f"bad |= {word} > 1;"]
    if not buffer.constant:
        lines.append(f"const uint64_t n{label} = {word} == 0 ? 0 : {size};")
    return lines


def _place(function: Function) -> list[str]:
    lines = [_place_one(buffer) for buffer in coming_in(function)]
    outs = [_place_one(buffer) for buffer in only_out(function)]
    if function.result is not None:
        size = function.result.size
        outs.append(f"const uint64_t at_result = cafe_serve_area(&serve, true, {size}, 1, {AREA_ALIGN});")
    if outs:
        lines += [f"(void)cafe_serve_area(&serve, true, 0, 1, {OUT_ALIGN});", *outs]
    return lines


def _word(buffer: Buffer) -> str:
    return f"fixed.{local(int(buffer.label), buffer.param)}"


def _place_one(buffer: Buffer) -> str:
    area = f"{_word(buffer)} != 0, {buffer.count}, {buffer.param.shape.size}, {AREA_ALIGN}"
    return f"const uint64_t at{buffer.label} = cafe_serve_area(&serve, {area});"


def _take(function: Function) -> list[str]:
    lines = []
    for buffer in coming_in(function):
        label, shape, at = buffer.label, buffer.param.shape, f"serve.memory + at{buffer.label}"
        copy = [
            f"cafe_serve_take(&serve, at{label}, {buffer.size});",
            *clear(at, buffer.count, shape, shape.flags),
        ]
        if buffer.param.carry is Carry.STRING:
            copy.append(f"serve.bad |= ({at})[n{label} - 1] != 0;")
        lines += block(f"if ({_word(buffer)} != 0)", copy)
    return lines


def _call(function: Function) -> list[str]:
    result = "void" if function.result is None else function.result.spelling
    types = ", ".join(param.spelling for param in function.params) or "void"
    arguments = ", ".join(_argument(index, param) for index, param in enumerate(function.params))
    assign = "" if function.result is None else f"{result} result = "
    return [f"{assign}(({result} (*)({types}))function)({arguments});", *_give(function)]


def _argument(index: int, param: Param) -> str:
    name = f"fixed.{local(index, param)}"
    if param.carry is Carry.VALUE:
        return f"{name} != 0" if param.shape.kind is Kind.BOOLEAN else name
    if param.carry is Carry.OPAQUE:
        return f"({param.spelling})(uintptr_t){name}"
    return f"{name} == 0 ? NULL : ({param.spelling})(void *)(serve.memory + at{index})"


def _give(function: Function) -> list[str]:
    lines = []
    for buffer in going_out(function):
        label, shape, at = buffer.label, buffer.param.shape, f"serve.memory + at{buffer.label}"
        copy = [
            *clear(at, buffer.count, shape, shape.holes),
            f"cafe_serve_give(&serve, at{label}, {at}, {buffer.size});",
        ]
        lines += block(f"if ({_word(buffer)} != 0)", copy)
    if function.result is None:
        return lines
    return [
        *lines,
        *clear("(uint8_t *)&result", "1", function.result, function.result.holes),
        "cafe_serve_give(&serve, at_result, &result, sizeof result);",
    ]
