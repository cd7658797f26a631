"""How parameters look in a generated Python module: names, annotations, ctypes, size expressions."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cafe_lib.interface.expression import Binary, Choice, Expression, Name, Number, Unary
from cafe_lib.interface.model import Carry, Function, Kind, Param
from cafe_lib.interface.records import Array, CType, Foreign, Named, Pointer, Records, Scalar, Signature

SUPPORT: Final = Path(__file__).resolve().parent.parent / "python" / "support.py"
TOP_NAME: Final = re.compile(r"^(?:class |def |import )([A-Za-z]\w*)", re.MULTILINE)
USED: Final = frozenset(
    re.findall(
        r"\w+",
        """
        Any Callable Path ReadableBuffer Sequence TYPE_CHECKING WriteableBuffer array bool bytearray bytes
        ctypes float int len list memoryview self shared_buffer str super tuple
        """,
    )
)
ENUM_NAMES: Final = frozenset(["mro", "name", "value"])  # attributes of every enum
SHORT: Final = 100
WHOLE: Final = (Kind.SIGNED, Kind.UNSIGNED)
CODES: Final = {
    (Kind.SIGNED, 1): "b", (Kind.SIGNED, 2): "h", (Kind.SIGNED, 4): "i", (Kind.SIGNED, 8): "q",
    (Kind.UNSIGNED, 1): "B", (Kind.UNSIGNED, 2): "H", (Kind.UNSIGNED, 4): "I", (Kind.UNSIGNED, 8): "Q",
    (Kind.FLOATING, 4): "f", (Kind.FLOATING, 8): "d",
}  # fmt: skip
CHECKED: Final = {"/": "_divide", "%": "_modulo", "<<": "_shift"}
LOGICAL: Final = {"&&": "and", "||": "or"}
COMPARING: Final = ("==", "!=", "<", ">", "<=", ">=")


class PythonNames:
    """Names of the module, and types as ctypes and as annotations spell them."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.defined: set[str] = set()  # records that the module has up to here
        self.taken = {*USED, *TOP_NAME.findall(SUPPORT.read_text())}

    def inner(self, name: str, index: int = 0) -> str:
        """Name a parameter or member."""
        if not name:
            return f"p{index}"
        if name.startswith("_"):
            return f"x{name}"  # names with _ are the module's own
        return f"{name}_" if keyword.iskeyword(name) or name in USED else name

    def outer(self, name: str) -> str:
        """Name something of the module, once."""
        name = f"x{name}" if name.startswith("_") else name
        while keyword.iskeyword(name) or name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def ctype(self, kind: CType | None) -> str:
        """Spell a type for ctypes."""
        match kind:
            case None:
                return "None"
            case Scalar():
                return f"ctypes.c_{_scalar_name(kind)}"
            case Array(element=element, count=count):
                text = isinstance(element, Scalar) and element.text
                return f"({'ctypes.c_char' if text else self.ctype(element)} * {count})"
            case Named(name=name) if name in self.records.records:
                return f"_T_{name}"
            case Named(name=name):
                return self.ctype(self.records.enumerations[name].type)
        return "ctypes.c_void_p"

    def typed(self, kind: CType | None) -> str:
        """Spell a type as an annotation."""
        match kind:
            case None:
                return "None"
            case Scalar(kind=what):
                return {Kind.BOOLEAN: "bool", Kind.FLOATING: "float"}.get(what, "int")
            case Array(element=element):
                text = isinstance(element, Scalar) and element.text
                return "bytes" if text else f"ctypes.Array[{self._element(element)}]"
            case Named(name=name) if name in self.records.records:
                return f"_T_{name}"
        return "int | None" if isinstance(kind, Pointer | Foreign) else "int"

    def _element(self, kind: CType) -> str:
        match kind:
            case Array(element=Scalar(text=True)):
                return "ctypes.Array[ctypes.c_char]"
            case Array(element=element):
                return f"ctypes.Array[{self._element(element)}]"
        return self.ctype(kind)

    def is_record(self, kind: CType | None) -> bool:
        """Whether it is a struct or union."""
        return isinstance(kind, Named) and kind.name in self.records.records

    def passable(self, found: Signature) -> bool:
        """Whether ctypes passes all values as C does."""
        return all(self._plain(kind) for kind in (*found.params, *([found.result] if found.result else [])))

    def _plain(self, kind: CType) -> bool:
        match kind:
            case Foreign():
                return False
            case Array(element=element):
                return self._plain(element)
            case Named(name=name) if name in self.records.records:
                record = self.records.records[name]
                members = None if record.union else record.members
                return members is not None and all(self._plain(member.type) for member in members)
        return True


@dataclass(frozen=True, slots=True)
class Slot:
    """A parameter with its Python name; ``type`` is the value's or the elements', Foreign for bytes."""

    param: Param
    name: str
    type: CType
    record: bool

    @property
    def single(self) -> bool:
        """One element, whatever the arguments are."""
        return self.param.count == Number(1) and not isinstance(self.type, Foreign)

    @property
    def code(self) -> str:
        """The element's letter for `array`, or ""."""
        kind = self.type
        return CODES.get((kind.kind, kind.size), "") if isinstance(kind, Scalar) else ""

    @property
    def raw(self) -> bool:
        """Elements that are bytes."""
        whole = isinstance(self.type, Scalar) and self.type.kind in WHOLE
        return isinstance(self.type, Foreign) or (whole and self.param.shape.size == 1)

    @property
    def buffer(self) -> bool:
        """Several elements in the caller's memory."""
        return self.param.carry in (Carry.IN, Carry.INOUT) and not self.single

    @property
    def returned(self) -> bool:
        """Handed back as a value: outputs, and one number that is changed."""
        changed = self.param.carry is Carry.INOUT and self.single and not self.record
        return self.param.carry is Carry.OUT or changed

    def checked(self, value: str) -> str:
        """Refuse an integer that the C type does not hold."""
        kind = self.type
        if not isinstance(kind, Scalar) or kind.kind not in WHOLE:
            return value
        signed = kind.kind is Kind.SIGNED
        high = (1 << (8 * kind.size - signed)) - 1
        return f'_whole({value}, {-high - 1 if signed else 0}, {high}, "{self.name}")'

    def total(self, names: Sequence[str]) -> str:
        """How many bytes its elements have."""
        return f"{self.elements(names)} * {self.param.shape.size}"

    def elements(self, names: Sequence[str]) -> str:
        """How many there are, in terms of the parameters."""
        assert self.param.count is not None  # noqa: S101 - of a buffer
        return f'_count({expression(self.param.count, names)}, "{self.name}")'


def slots_of(function: Function, found: Signature, names: PythonNames) -> list[Slot]:
    """Pair the parameters with what the header says of their types."""
    slots = []
    for index, (param, declared) in enumerate(zip(function.params, found.params, strict=True)):
        kind: CType = declared
        if isinstance(kind, Pointer) and param.carry is not Carry.VALUE:
            kind = kind.target or Foreign("void", 1, 1)
        if isinstance(kind, Named) and kind.name in names.records.enumerations:
            kind = names.records.enumerations[kind.name].type
        followed = param.carry not in (Carry.VALUE, Carry.OPAQUE)
        whole = isinstance(kind, Scalar) or names.is_record(kind)
        if not whole or (followed and names.records.sizes(kind)[0] != param.shape.size):
            kind = Foreign("", param.shape.size, 1)
        slots.append(Slot(param, names.inner(param.name, index), kind, names.is_record(kind)))
    return slots


def expression(found: Expression, names: Sequence[str]) -> str:
    """Write a size expression; where C would refuse a value, this one is negative or another."""
    match found:
        case Number(value=value):
            return str(value)
        case Name(parameter=index):
            return f"int({names[index]})"
        case Unary(operator=symbol, operand=inner):
            text = expression(inner, names)
            return f"({2**64 - 1} - {text})" if symbol == "~" else f"int(not {text})"
        case Binary(operator=symbol, left=left, right=right):
            return _binary(symbol, expression(left, names), expression(right, names))
        case Choice(condition=condition, yes=yes, no=no):
            parts = [expression(part, names) for part in (yes, condition, no)]
            return f"({parts[0]} if {parts[1]} else {parts[2]})"


def _binary(symbol: str, left: str, right: str) -> str:
    if symbol in CHECKED:
        return f"{CHECKED[symbol]}({left}, {right})"
    if symbol in LOGICAL:
        return f"int(bool({left} {LOGICAL[symbol]} {right}))"
    return f"int({left} {symbol} {right})" if symbol in COMPARING else f"({left} {symbol} {right})"


def _scalar_name(kind: Scalar) -> str:
    if kind.kind is Kind.BOOLEAN:
        return "bool"
    if kind.kind is Kind.FLOATING:
        return "float" if kind.size == 4 else "double"  # noqa: PLR2004 - bytes
    return f"{'u' * (kind.kind is Kind.UNSIGNED)}int{8 * kind.size}"


def headline(name: str, params: Sequence[str], result: str) -> list[str]:
    """Write the first lines of a function."""
    line = f"def {name}({', '.join(params)}) -> {result}:"
    if len(line) <= SHORT:
        return [line]
    return [f"def {name}(", *(f"    {param}," for param in params), f") -> {result}:"]


def quoted(text: str) -> str:
    """Make C text fit for a docstring."""
    return text.replace("\\", "\\\\").replace('"""', "'''")
