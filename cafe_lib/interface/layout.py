"""The fixed part of a call's frame: a C struct of the parameters in order (cafe_abi.h)."""

from __future__ import annotations

from dataclasses import dataclass

from cafe_lib.interface.model import Carry, Function, Param, Shape

FRAME_OFFSET = 80  # CAFE_SLOT_FRAME
RESULT_BYTES = 56  # CAFE_RESULT_BYTES
AREA_ALIGN = 16
OUT_ALIGN = 64
POINTER_BYTES = 8
MAX_FIXED_BYTES = 2048  # so that the fixed part is inside the smallest slot
MAX_PARAMS = 64


@dataclass(frozen=True, slots=True)
class FixedPart:
    """Offsets count from the start of the frame, in bytes."""

    offsets: tuple[int, ...]
    size: int
    align: int


def fixed_part(function: Function) -> FixedPart:
    """Lay out the parameters as a C compiler does."""
    return fixed_part_of(function.params)


def fixed_part_of(params: tuple[Param, ...]) -> FixedPart:
    """Lay out parameters that may not belong to a checked function yet."""
    place, strictest, offsets = 0, 1, []
    for param in params:
        by_value = param.carry is Carry.VALUE
        size, align = (param.shape.size, param.shape.align) if by_value else (POINTER_BYTES, POINTER_BYTES)
        place = round_up(place, align)
        offsets.append(place)
        place += size
        strictest = max(strictest, align)
    return FixedPart(tuple(offsets), round_up(place, strictest), strictest)


def result_in_slot(shape: Shape) -> bool:
    """Whether a result fits the slot's own field; a larger one is the last part of the out area."""
    return shape.size <= RESULT_BYTES


def round_up(value: int, align: int) -> int:
    """Find the next multiple of ``align``, a power of two."""
    return (value + align - 1) & -align
