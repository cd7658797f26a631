"""The buffers of a call, in the order in which both sides place them in the frame (cafe_abi.h)."""

from __future__ import annotations

from dataclasses import dataclass

from cafe_lib.interface.expression import Number
from cafe_lib.interface.layout import result_in_slot
from cafe_lib.interface.model import Carry, Field, Function, Param


@dataclass(frozen=True, slots=True)
class Buffer:
    """What one pointer stands for. ``label`` makes the stub's names: ``2`` a parameter, ``2_0`` its field."""

    label: str
    param: Param  # or the Field
    owner: int | None = None  # the parameter whose struct the field is in
    offset: int = 0  # in that struct

    @property
    def size(self) -> str:
        """Bytes of it, in C, where it is known not to be null."""
        if isinstance(self.param.count, Number) and self.param.carry is not Carry.STRING:
            return f"{self.param.count.value * self.param.shape.size}ul"
        size = self.param.shape.size
        return f"n{self.label}" if size == 1 else f"n{self.label} * {size}ul"

    @property
    def count(self) -> str:
        """Elements of it, in C."""
        if isinstance(self.param.count, Number) and self.param.carry is not Carry.STRING:
            return f"{self.param.count.value}"
        return f"n{self.label}"

    @property
    def constant(self) -> bool:
        """Its size needs no variable."""
        return self.count != f"n{self.label}"


def buffers(function: Function) -> list[Buffer]:
    """All of them, a struct before what its fields point to."""
    found: list[Buffer] = []
    for index, param in enumerate(function.params):
        if param.count is not None:
            found.append(Buffer(str(index), param))
        found += fields(index, param)
    return found


def fields(index: int, param: Param) -> list[Buffer]:
    """Those that the struct of one parameter points to."""
    return [
        Buffer(f"{index}_{number}", field, index, field.offset)
        for number, field in enumerate(param.fields)
        if field.count is not None
    ]


def opaque_fields(param: Param) -> list[Field]:
    """Pointers of a struct that cross as values."""
    return [field for field in param.fields if field.carry is Carry.OPAQUE]


def coming_in(function: Function) -> list[Buffer]:
    """Those of the in area."""
    return [buffer for buffer in buffers(function) if buffer.param.carries_in]


def only_out(function: Function) -> list[Buffer]:
    """Those of the out area."""
    return [buffer for buffer in buffers(function) if buffer.param.carry is Carry.OUT]


def going_out(function: Function) -> list[Buffer]:
    """Those whose bytes come back."""
    return [buffer for buffer in buffers(function) if buffer.param.carries_out]


def large_result(function: Function) -> bool:
    """Whether the result ends the out area."""
    return function.result is not None and not result_in_slot(function.result)
