"""The function of a generated Python module that implements a callback by a Python function.

The Python function gets what comes in as values of its own and returns what goes out; an exception goes on in
the call of the secret function that the callback belongs to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from cafe_lib.interface.model import Carry, Function, Kind
from cafe_lib.interface.records import Records, Scalar, Signature
from cafe_lib.toolchain.bind_python_calls import handed, returns
from cafe_lib.toolchain.bind_python_types import WHOLE, PythonNames, Slot, quoted, slots_of

LITERAL: Final = re.compile(r"(?<=[0-9])[ul]+")
SPECIAL: Final = {
    '__builtin_nan("")': 'float("nan")',
    "__builtin_inf()": 'float("inf")',
    "-__builtin_inf()": '-float("inf")',
}


def callback_setter(function: Function, records: Records, names: PythonNames) -> list[str]:
    """Write ``set_NAME``."""
    found = records.signatures[function.symbol]
    if not names.passable(found) or names.is_record(found.result):
        return [f"# Callback `{function.display}` is left out: ctypes cannot pass its values as C does."]
    flat = "_".join((*function.scope, function.name))
    slots = slots_of(function, found, names)
    outs = [one for one in slots if one.returned]
    given = ", ".join(_given(one, names) for one in slots if one.param.carry is not Carry.OUT)
    types = (names.ctype(one.type) if one.param.carry is Carry.VALUE else "ctypes.c_void_p" for one in slots)
    arguments = ", ".join(f"_{index}: Any" for index in range(len(slots)))
    wanted = f"Callable[[{given}], {returns(found, outs, names)}]"
    return [
        f"_C_{flat} = ctypes.CFUNCTYPE({', '.join([names.ctype(found.result), *types])}, use_errno=True)",
        "",
        "",
        f"def {names.outer(f'set_{flat}')}(function: {wanted}) -> None:",
        f'    """Implement `{quoted(found.text)}`. Raises LookupError if the library does not know it."""',
        "",
        f"    def serve({arguments}) -> Any:",
        *(f"        {line}" for line in _serve(slots, found, names)),
        "",
        f"    guarded = _guard(serve, {_otherwise(function, found)})",
        f'    _install(_library, "{function.display}", _C_{flat}, guarded)',
    ]


def _given(slot: Slot, names: PythonNames) -> str:
    """Annotate what the Python function gets."""
    carry, typed = slot.param.carry, names.typed(slot.type)
    if carry is Carry.VALUE:
        return typed
    if carry is Carry.STRING:
        return "str | None"
    if carry is Carry.OPAQUE:
        return "int | None"
    if carry is Carry.INOUT and slot.raw and not slot.single:
        return "bytearray"
    return handed(slot, names)


def _serve(slots: Sequence[Slot], found: Signature, names: PythonNames) -> list[str]:
    values = [f"_{index}" for index in range(len(slots))]
    outs = [(index, one) for index, one in enumerate(slots) if one.returned]
    lines = []
    for index, one in enumerate(slots):
        if one.param.carry is not Carry.OUT:
            lines.append(f"_a{index} = {_value(index, one, values, names)}")
    arguments = ", ".join(f"_a{i}" for i, one in enumerate(slots) if one.param.carry is not Carry.OUT)
    targets = [*([] if found.result is None else ["_r"]), *(f"_o{index}" for index, _ in outs)]
    lines.append(f"{', '.join(targets)}{' = ' * bool(targets)}function({arguments})")
    for index, one in enumerate(slots):
        if one.returned:
            lines.append(_put(index, one, f"_o{index}", values, names))
        elif one.param.carry is Carry.INOUT:
            lines.append(_put(index, one, f"_a{index}", values, names))
    return [*lines, f"return {_result(found)}"]


def _value(index: int, slot: Slot, values: Sequence[str], names: PythonNames) -> str:
    carry, at = slot.param.carry, f"_{index}"
    if carry in (Carry.VALUE, Carry.OPAQUE):
        return at
    if carry is Carry.STRING:
        return f'ctypes.string_at({at}).decode(errors="surrogateescape") if {at} else None'
    data = f"_bytes_at({at}, {slot.total(values)})"
    kind = names.ctype(slot.type)
    if slot.single:
        return f"{kind}.from_buffer_copy({data}){'' if slot.record else '.value'}"
    if slot.raw:
        return f"bytearray({data})" if carry is Carry.INOUT else data
    if slot.code:
        return f'array.array("{slot.code}", {data})'
    return f"list(({kind} * {slot.elements(values)}).from_buffer_copy({data}))"


def _put(index: int, slot: Slot, value: str, values: Sequence[str], names: PythonNames) -> str:
    if slot.single and not slot.record:
        value = f"bytes({names.ctype(slot.type)}({slot.checked(value)}))"
    elif slot.record and not slot.single:
        value = f'b"".join(bytes(one) for one in {value})'
    elif not slot.raw and not slot.single:
        kind = names.ctype(slot.type)
        value = f'array.array("{slot.code}", {value})' if slot.code else f"({kind} * len({value}))(*{value})"
    return f'_put_at(_{index}, {slot.total(values)}, {value}, "{slot.name}")'


def _result(found: Signature) -> str:
    if found.result is None:
        return "None"
    if isinstance(found.result, Scalar) and found.result.kind in WHOLE:
        signed, bits = found.result.kind is Kind.SIGNED, 8 * found.result.size
        high = (1 << (bits - signed)) - 1
        return f'_whole(_r, {-high - 1 if signed else 0}, {high}, "result")'
    return "_r"


def _otherwise(function: Function, found: Signature) -> str:
    """Write what C gets where Python raised: CAFE_ON_ERROR's value, or zero."""
    if found.result is None:
        return "None"
    text = function.on_error or "0"
    return SPECIAL.get(text) or LITERAL.sub("", text)
