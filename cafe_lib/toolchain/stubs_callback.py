"""The secret side of callbacks: a function that has the public program run the one of the same name.

It settles every size from private values, writes the frame into the slot of the call it is made in, waits,
and reads results once.
"""

from __future__ import annotations

from cafe_lib.interface.layout import AREA_ALIGN, OUT_ALIGN, fixed_part
from cafe_lib.interface.model import Carry, Function, Kind, Param, Shape
from cafe_lib.toolchain.stub_buffers import Buffer, buffers, coming_in, going_out, only_out
from cafe_lib.toolchain.stub_text import (
    block,
    clear,
    error_value,
    hole_rows,
    indent,
    layout_checks,
    local,
    plus,
    prototype,
    size_text,
)


def callback_lines(number: int, function: Function) -> list[str]:
    """Define the function that secret code calls."""
    failure = (
        f"return{_result_name(function)};" if function.on_error is not None else "rt_abort(frame.status);"
    )
    body = [
        *error_value(function),
        "struct rt_frame frame;",
        f"rt_frame_open(&frame, {fixed_part(function).size});",
        *_counts(function),
        *_place(function),
        *block("if (frame.status == CAFE_OK)", _write(function)),
        f"rt_frame_run(&frame, {number});",
        *block("if (frame.status != CAFE_OK)", [failure]),
        *_read(function),
        *([] if function.result is None else ["return result;"]),
    ]
    return [*layout_checks(function), f"{prototype(function)} {{", *indent(body), "}"]


def _result_name(function: Function) -> str:
    return "" if function.result is None else " result"


def _counts(function: Function) -> list[str]:
    names = [local(index, param) for index, param in enumerate(function.params)]
    lines = []
    for buffer in buffers(function):
        name, param = names[int(buffer.label)], buffer.param
        if param.count is None or buffer.constant:
            continue
        size = size_text(param.count, names, function.params)
        value = f"rt_frame_string(&frame, {name}, {size})" if param.carry is Carry.STRING else size
        lines.append(f"const uint64_t n{buffer.label} = {name} == NULL ? 0 : {value};")
    if any("&bad" in line for line in lines):
        return ["bool bad = false;", *lines, "rt_frame_check(&frame, !bad);"]
    return lines


def _place(function: Function) -> list[str]:
    lines = [_place_one(function, buffer) for buffer in coming_in(function)]
    outs = [_place_one(function, buffer) for buffer in only_out(function)]
    if function.result is not None:
        size = function.result.size
        outs.append(f"const uint64_t at_result = rt_frame_area(&frame, {size}, 1, {AREA_ALIGN});")
    if outs:
        lines += [f"(void)rt_frame_area(&frame, 0, 1, {OUT_ALIGN});", *outs]
    return lines


def _place_one(function: Function, buffer: Buffer) -> str:
    name = local(int(buffer.label), function.params[int(buffer.label)])
    area = f"rt_frame_area(&frame, {buffer.count}, {buffer.param.shape.size}, {AREA_ALIGN})"
    return f"const uint64_t at{buffer.label} = {name} == NULL ? 0 : {area};"


def _write(function: Function) -> list[str]:
    layout = fixed_part(function)
    lines = [f"uint8_t fixed[{layout.size}] = {{0}};"] if function.params else []
    for index, (param, offset) in enumerate(zip(function.params, layout.offsets, strict=True)):
        lines += _write_fixed(index, param, plus("fixed", offset))
    if function.params:
        lines.append("rt_frame_put(&frame, CAFE_SLOT_FRAME, fixed, sizeof fixed);")
    for buffer in coming_in(function):
        name = local(int(buffer.label), buffer.param)
        lines += block(f"if ({name} != NULL)", _put(f"at{buffer.label}", name, buffer))
    return lines


def _write_fixed(index: int, param: Param, place: str) -> list[str]:
    name = local(index, param)
    if param.carry is Carry.VALUE:
        if param.shape.kind is Kind.BOOLEAN:
            return [f"*({place}) = {name} ? 1 : 0;"]
        copy = f"__builtin_memcpy({place}, &{name}, sizeof {name});"
        return [copy, *clear(place, "1", param.shape, param.shape.holes)]
    if param.carry is Carry.STRING:
        return [f"rt_set_word({place}, n{index});"]
    if param.carry is Carry.OPAQUE:
        return [f"rt_set_pointer({place}, (const void *){name});"]
    return [f"rt_set_word({place}, {name} != NULL);"]


def _put(at: str, name: str, buffer: Buffer) -> list[str]:
    shape = buffer.param.shape
    if not shape.holes:
        return [f"rt_frame_put(&frame, {at}, (const void *){name}, {buffer.size});"]
    counts = f"{buffer.count}, {shape.size}, holes, {len(shape.holes)}"
    return [
        f"static const struct cafe_hole holes[] = {{{hole_rows(shape.holes)}}};",
        f"rt_frame_put_clear(&frame, {at}, (const void *){name}, {counts});",
    ]


def _read(function: Function) -> list[str]:
    lines = []
    for buffer in going_out(function):
        name, shape = local(int(buffer.label), buffer.param), buffer.param.shape
        copy = [
            f"rt_frame_get(&frame, at{buffer.label}, (void *){name}, {buffer.size});",
            *clear(f"(uint8_t *)(void *){name}", buffer.count, shape, shape.holes),
        ]
        lines += block(f"if ({name} != NULL)", copy)
    return [*lines, *_read_result(function.result)]


def _read_result(result: Shape | None) -> list[str]:
    if result is None:
        return []
    if result.kind is Kind.BOOLEAN:
        return ["uint8_t truth;", "rt_frame_get(&frame, at_result, &truth, 1);", "result = truth != 0;"]
    return [
        "rt_frame_get(&frame, at_result, &result, sizeof result);",
        *clear("(uint8_t *)&result", "1", result, result.holes),
    ]
