"""What the hostile side knows of an interface, as C: fields of frames, their roles, values at their edges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cafe_lib.interface.expression import Binary, Choice, Expression, Name, Number, Unary, names_in
from cafe_lib.interface.layout import FRAME_OFFSET, POINTER_BYTES, fixed_part
from cafe_lib.interface.model import Carry, Function, Interface, Param

TOP = 2**64 - 1
MAX_EDGES = 48
VALUE, SIZE, BUFFER, STRING = "HOSTILE_VALUE", "HOSTILE_SIZE", "HOSTILE_BUFFER", "HOSTILE_STRING"


@dataclass(frozen=True, slots=True)
class Room:
    """Sizes that the fuzzed channel has, in bytes."""

    slot_bytes: int
    bulk_bytes: int


def table_source(interface: Interface, room: Room) -> str:
    """Source of the tables that the programs in native/ are linked with."""
    lines = ['#include "hostile.h"', '#include "stand_in.h"', ""]
    count = len(interface.functions)
    lines += [f"enum cafe_status cafe_entry_{index}(struct rt_call *call);" for index in range(count)]
    entries = ", ".join(f"cafe_entry_{index}" for index in range(count))
    lines += [
        f"rt_entry_function *const stand_in_entries[] = {{{entries}}};",
        f"const uint32_t stand_in_entry_count = {count};",
        *function_tables(interface, room),
    ]
    return "\n".join([*lines, ""])


def function_tables(interface: Interface, room: Room) -> list[str]:
    """Describe the frame of every secret function, and the channel."""
    return [
        *frame_tables("hostile_functions", interface.functions, room),
        f"const uint32_t hostile_function_count = {len(interface.functions)};",
        f"const uint64_t hostile_slot_bytes = {room.slot_bytes}, hostile_bulk_bytes = {room.bulk_bytes};",
    ]


def frame_tables(name: str, functions: Sequence[Function], room: Room) -> list[str]:
    """Describe the frames of some functions as an array of that name."""
    lines, rows = [], []
    for index, function in enumerate(functions):
        edges = edges_of(function, room)
        fields = [*_fields(function)]
        values = ", ".join(f"{edge}ul" for edge in edges) or "0"
        lines.append(f"static const uint64_t {name}_edges_{index}[] = {{{values}}};")
        rows_of = ", ".join(fields) or "{0}"
        lines.append(f"static const struct hostile_field {name}_fields_{index}[] = {{{rows_of}}};")
        sizes = f"{len(fields)}, {fixed_part(function).size}"
        row = f'"{function.display}", {name}_fields_{index}, {sizes}, {name}_edges_{index}, {len(edges)}'
        rows.append(f"    {{{row}}},")
    return [
        *lines,
        f"const struct hostile_function {name}[] = {{",
        *(rows or ["    {0},"]),
        "};",
    ]


def _fields(function: Function) -> Iterator[str]:
    sized = sizing(function)
    for index, (param, offset) in enumerate(zip(function.params, fixed_part(function).offsets, strict=True)):
        size = param.shape.size if param.carry is Carry.VALUE else POINTER_BYTES
        yield f'{{"{param.name or index}", {offset}, {size}, {role_of(param, counted=index in sized)}}}'


def role_of(param: Param, *, counted: bool) -> str:
    """Say what the hostile side should put in a parameter's place."""
    match param.carry:
        case Carry.IN | Carry.OUT | Carry.INOUT:
            return BUFFER
        case Carry.STRING:
            return STRING
        case _:
            return SIZE if counted else VALUE


def sizing(function: Function) -> set[int]:
    """Find the parameters that a count is computed from."""
    counts = [param.count for param in function.params if param.count is not None]
    return {index for count in counts for index in names_in(count)}


def edges_of(function: Function, room: Room) -> list[int]:
    """Find values at which a count or a size of this function's reaches a limit; each fits 64 bits."""
    found: dict[int, None] = {}
    for param in _pointers(function):
        for value in constants_in(param.count) if param.count is not None else ():
            found.update(dict.fromkeys((value - 1, value, value + 1)))
        element = max(param.shape.size, 1)
        frame = room.slot_bytes - FRAME_OFFSET - fixed_part(function).size
        for limit in (TOP, 2**32, frame, room.bulk_bytes):
            found.update(dict.fromkeys((limit // element, limit // element + 1)))
    return [value for value in found if 0 <= value <= TOP][:MAX_EDGES]


def _pointers(function: Function) -> Iterator[Param]:
    for param in function.params:
        yield param
        yield from param.fields


def constants_in(expression: Expression) -> set[int]:
    """Collect the numbers of a size expression."""
    match expression:
        case Number(value=value):
            return {value}
        case Name():
            return set()
        case Unary(operand=inner):
            return constants_in(inner)
        case Binary(left=left, right=right):
            return constants_in(left) | constants_in(right)
        case Choice(condition=condition, yes=yes, no=no):
            return constants_in(condition) | constants_in(yes) | constants_in(no)
