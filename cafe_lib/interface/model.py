"""What crosses the boundary: secret functions, callbacks, their parameters, and how each is carried."""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import dataclass

from cafe_lib.interface.expression import Expression, format_expression


class Carry(enum.StrEnum):
    """How a parameter crosses."""

    VALUE = "value"  # a scalar or by-value struct, copied
    IN = "in"
    OUT = "out"
    INOUT = "inout"
    STRING = "str"
    OPAQUE = "opaque"  # a pointer's value, never followed


class Kind(enum.StrEnum):
    """What a type is, as far as size expressions and stubs care."""

    UNSIGNED = "unsigned"
    SIGNED = "signed"
    BOOLEAN = "boolean"
    FLOATING = "floating"
    RECORD = "record"  # struct, union, array, vector, complex
    VOID = "void"


@dataclass(frozen=True, slots=True)
class Hole:
    """Bytes of a type that hold no value, or only some bits of one: ``byte &= mask`` for ``count`` bytes."""

    offset: int
    count: int
    mask: int


@dataclass(frozen=True, slots=True)
class Shape:
    """A type that can be copied byte by byte. Sizes in bytes; ``print`` tells layouts apart."""

    spelling: str
    kind: Kind
    size: int
    align: int
    print: str
    holes: tuple[Hole, ...] = ()

    @property
    def flags(self) -> tuple[Hole, ...]:
        """The bytes of which one bit counts, bools among them: whoever sends them may have set the others."""
        return tuple(hole for hole in self.holes if hole.mask == 1)


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter. ``shape`` is the value, or what the pointer points to; ``count`` in elements of it."""

    name: str
    spelling: str  # the declared type, for the stub's prototype
    carry: Carry
    shape: Shape
    count: Expression | None = None
    const: bool = False
    fields: tuple[Field, ...] = ()  # of the struct it points to, each a pointer that is followed, too
    scalars: tuple[Param, ...] = ()  # that struct's integers, for the fields' counts

    @property
    def carries_in(self) -> bool:
        """Bytes go into the enclave."""
        return self.carry in (Carry.IN, Carry.INOUT, Carry.STRING)

    @property
    def carries_out(self) -> bool:
        """Bytes come back."""
        return self.carry in (Carry.OUT, Carry.INOUT)


@dataclass(frozen=True, slots=True)
class Field(Param):
    """A pointer inside a struct, ``offset`` bytes from its start; names in ``count`` are the struct's."""

    offset: int = 0


@dataclass(frozen=True, slots=True)
class Function:
    """A secret function or a callback.

    ``on_error`` is C text made of checked numbers only; None: a failed call ends the process, a failed
    callback the enclave.
    """

    name: str
    scope: tuple[str, ...]  # C++ namespaces, outermost first
    symbol: str
    params: tuple[Param, ...]
    result: Shape | None
    on_error: str | None
    noexcept: bool
    place: str  # file:line
    serial: bool = False  # one call at a time; both sides need not agree on that

    @property
    def display(self) -> str:
        """The name with its namespaces."""
        return "::".join((*self.scope, self.name))


@dataclass(frozen=True, slots=True)
class Interface:
    """All secret functions of some headers, in order of declaration: the index is the entry number.

    Callbacks are numbered likewise, on their own.
    """

    headers: tuple[str, ...]  # file names, to be found through include directories
    language: str  # "c" or "c++"
    functions: tuple[Function, ...]
    callbacks: tuple[Function, ...] = ()

    def digest(self) -> bytes:
        """SHA-256 over everything both sides must agree on; 32 bytes."""
        parts = [[_describe(one) for one in some] for some in (self.functions, self.callbacks)]
        text = json.dumps(parts, separators=(",", ":"))
        return hashlib.sha256(b"cafe interface v2" + text.encode()).digest()


def _describe(function: Function) -> list[object]:
    params = [
        [*_describe_pointer(param), [[field.offset, *_describe_pointer(field)] for field in param.fields]]
        for param in function.params
    ]
    return [function.symbol, params, "" if function.result is None else function.result.print]


def _describe_pointer(param: Param) -> list[object]:
    return [param.carry, param.shape.print, "" if param.count is None else format_expression(param.count)]
