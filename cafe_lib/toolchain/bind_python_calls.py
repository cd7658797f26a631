"""The function of a generated Python module that calls a secret function.

Whatever C would read or write is checked against what the caller gave before the call, so a mistake is an
exception and no memory error. A count that only says how long a buffer is, is not asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from cafe_lib.interface.expression import Name
from cafe_lib.interface.model import Carry, Function
from cafe_lib.interface.records import Records, Scalar, Signature
from cafe_lib.toolchain.bind_python_types import WHOLE, PythonNames, Slot, headline, quoted, slots_of


def call_function(function: Function, records: Records, names: PythonNames) -> list[str]:
    """Write the function that calls a secret function."""
    found = records.signatures[function.symbol]
    if not names.passable(found):
        return [f"# `{function.display}` is left out: ctypes cannot pass one of its values as C does."]
    name = names.outer("_".join((*function.scope, function.name)))
    slots = slots_of(function, found, names)
    outs = [one for one in slots if one.returned]
    types = "".join(
        f", {names.ctype(one.type) if one.param.carry is Carry.VALUE else 'ctypes.c_void_p'}" for one in slots
    )
    asked = [one for i, one in enumerate(slots) if _asked(i, one, slots)]
    heads = [f"{one.name}: {_taken(one, names)}" for one in asked]
    return [
        f'_f_{name} = _function(_library, "{function.symbol}", {names.ctype(found.result)}{types})',
        "",
        "",
        *headline(name, heads, returns(found, outs, names)),
        *_docstring(function, found, outs),
        *(f"    {line}" for line in _body(function, slots, found, f"_f_{name}", names)),
    ]


def returns(found: Signature, outs: Sequence[Slot], names: PythonNames) -> str:
    """Annotate the result with the outputs after it."""
    parts = [] if found.result is None else [names.typed(found.result)]
    parts += [handed(one, names) for one in outs]
    return parts[0] if len(parts) == 1 else f"tuple[{', '.join(parts)}]" if parts else "None"


def handed(slot: Slot, names: PythonNames) -> str:
    """Annotate what an output is handed over as."""
    typed = names.typed(slot.type)
    if slot.single:
        return typed
    if slot.raw:
        return "bytes"
    return f"array.array[{typed}]" if slot.code else f"list[{typed}]"


def _lead(index: int, slots: Sequence[Slot]) -> int | None:
    """Find the buffer whose length this parameter is, if that is what it says."""
    kind = slots[index].type
    if slots[index].param.carry is not Carry.VALUE or not isinstance(kind, Scalar) or kind.kind not in WHOLE:
        return None
    found = (
        place
        for place, one in enumerate(slots)
        if one.buffer and isinstance(one.param.count, Name) and one.param.count.parameter == index
    )
    return next(found, None)


def _asked(index: int, slot: Slot, slots: Sequence[Slot]) -> bool:
    return slot.param.carry is not Carry.OUT and _lead(index, slots) is None


def _taken(slot: Slot, names: PythonNames) -> str:
    """Annotate what a call takes."""
    carry, typed = slot.param.carry, names.typed(slot.type)
    if carry is Carry.VALUE:
        return typed
    if carry is Carry.STRING:
        return "str | bytes | None"
    if carry is Carry.OPAQUE:
        return "int | None"
    if slot.single:
        return typed if slot.returned else f"{typed} | None"
    if carry is Carry.INOUT:
        return "WriteableBuffer | None"
    return "ReadableBuffer | None" if slot.raw else f"ReadableBuffer | Sequence[{typed}] | None"


def _docstring(function: Function, found: Signature, outs: Sequence[Slot]) -> list[str]:
    fails = "Ends the process" if function.on_error is None else "Raises CafeCallError"
    parts = [*([] if found.result is None else ["the result"]), *(one.name for one in outs)]
    back = f"Returns {', '.join(parts)}. " if outs else ""
    lines = [f"Call `{quoted(found.text)}`.", "", f"{back}{fails} if the call cannot be carried out."]
    return [f'    """{lines[0]}', "", f"    {lines[2]}", '    """']


def _body(
    function: Function, slots: Sequence[Slot], found: Signature, callee: str, names: PythonNames
) -> list[str]:
    values = [one.name for one in slots]
    lines = [line for i, one in enumerate(slots) for line in _buffer(i, one, names)]
    for index, one in enumerate(slots):
        lead = _lead(index, slots)
        value = one.name if lead is None else f"_n{lead}"
        if one.param.carry is Carry.VALUE and (lead is not None or one.checked(value) != value):
            lines.append(f"{one.name} = {one.checked(value)}")
    for index, one in enumerate(slots):
        lines += _prepare(index, one, values, names, leads=_leads(index, slots))
    arguments = "".join(f", {_argument(i, one)}" for i, one in enumerate(slots))
    target = "" if found.result is None else f"_result: {names.typed(found.result)} = "
    lines.append(f'{target}_call(_library, "{function.display}", {callee}{arguments})')
    parts = [] if found.result is None else ["_result"]
    parts += [_given_back(i, one) for i, one in enumerate(slots) if one.returned]
    return [*lines, f"return {', '.join(parts)}"] if parts else lines


def _leads(index: int, slots: Sequence[Slot]) -> bool:
    return any(_lead(other, slots) == index for other in range(len(slots)))


def _buffer(index: int, slot: Slot, names: PythonNames) -> list[str]:
    if not slot.buffer:
        return []
    size = slot.param.shape.size
    if slot.param.carry is Carry.INOUT:
        return [f'_{index}, _n{index} = _change({slot.name}, {size}, "{slot.name}")']
    kind = "ctypes.c_char" if slot.raw else names.ctype(slot.type)
    return [f'_{index}, _n{index} = _read({slot.name}, "{slot.code}", {kind}, {size}, "{slot.name}")']


def _prepare(index: int, slot: Slot, values: Sequence[str], names: PythonNames, *, leads: bool) -> list[str]:
    name, carry, kind = slot.name, slot.param.carry, names.ctype(slot.type)
    if carry is Carry.STRING:
        return [f'_{index} = _text({name}, "{name}")']
    if slot.buffer:
        enough = f'_enough(_n{index}, {slot.elements(values)}, "{name}")'
        return [] if leads else [f"if {name} is not None:", f"    {enough}"]
    if carry is Carry.OUT:
        several = (
            f"(ctypes.c_char * ({slot.total(values)}))" if slot.raw else f"({kind} * {slot.elements(values)})"
        )
        return [f"_{index} = {kind if slot.single else several}()"]
    if carry in (Carry.IN, Carry.INOUT) and not slot.record:
        one = f"({kind} * 1)({slot.checked(name)})"
        return [f"_{index} = {one}" if slot.returned else f"_{index} = None if {name} is None else {one}"]
    return []


def _argument(index: int, slot: Slot) -> str:
    carry = slot.param.carry
    if carry in (Carry.VALUE, Carry.OPAQUE):
        return slot.name
    if carry is Carry.OUT and slot.single:
        return f"ctypes.byref(_{index})"
    if slot.single and slot.record:
        return f"None if {slot.name} is None else ctypes.byref({slot.name})"
    return f"_{index}"


def _given_back(index: int, slot: Slot) -> str:
    if slot.single and slot.record:
        return f"_{index}"
    if slot.single:
        return f"_{index}.value" if slot.param.carry is Carry.OUT else f"_{index}[0]"
    if slot.raw:
        return f"_{index}.raw"
    return f'array.array("{slot.code}", bytes(_{index}))' if slot.code else f"list(_{index})"
