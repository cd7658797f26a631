"""Messages as frozen dataclasses: each field has its rule in its annotation, and both ways check it.

A message is a CBOR map: key 0 is its type number, keys 1, 2, ... are the fields in the order of the class.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Annotated, ClassVar, Protocol, Self, get_type_hints, runtime_checkable

from cafe_lib.errors import LimitError, MalformedError
from cafe_lib.wire import codec, limits

MAX_FIELDS = 23


@runtime_checkable
class Rule(Protocol):
    """What a field may hold."""

    def check(self, value: object, where: str) -> object:
        """Return `value` in its one form, or raise MalformedError or LimitError."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes, `least` to `most` of them."""

    least: int
    most: int

    def check(self, value: object, where: str) -> object:
        """See Rule."""
        if type(value) is not bytes:
            raise MalformedError(f"{where}: bytes expected")
        if len(value) > self.most:
            raise LimitError(f"{where}: {len(value)} bytes, at most {self.most}")
        if len(value) < self.least:
            raise MalformedError(f"{where}: {len(value)} bytes, at least {self.least}")
        return value


@dataclass(frozen=True, slots=True)
class Text:
    """Printable text, `least` to `most` bytes of UTF-8, matching `pattern` as a whole."""

    least: int
    most: int
    pattern: str = r".*"

    def check(self, value: object, where: str) -> object:
        """See Rule."""
        if type(value) is not str:
            raise MalformedError(f"{where}: text expected")
        if not value.isprintable() or not re.fullmatch(self.pattern, value):
            raise MalformedError(f"{where}: characters that are not allowed")
        length = len(value.encode())
        if length > self.most:
            raise LimitError(f"{where}: {length} bytes of text, at most {self.most}")
        if length < self.least:
            raise MalformedError(f"{where}: text is missing")
        return value


@dataclass(frozen=True, slots=True)
class Uint:
    """An unsigned integer, `least` to `most`."""

    least: int
    most: int

    def check(self, value: object, where: str) -> object:
        """See Rule."""
        if type(value) is not int:
            raise MalformedError(f"{where}: integer expected")
        if not self.least <= value <= self.most:
            raise LimitError(f"{where}: outside {self.least}..{self.most}")
        return value


@dataclass(frozen=True, slots=True)
class Items:
    """An array of at most `most` items of one rule; a tuple in Python."""

    item: Rule
    most: int

    def check(self, value: object, where: str) -> object:
        """See Rule."""
        if not isinstance(value, list | tuple):
            raise MalformedError(f"{where}: array expected")
        if len(value) > self.most:
            raise LimitError(f"{where}: {len(value)} items, at most {self.most}")
        return tuple(self.item.check(item, where) for item in value)


@dataclass(frozen=True, slots=True)
class Row:
    """An array with one rule per place; a tuple in Python."""

    places: tuple[Rule, ...]

    def check(self, value: object, where: str) -> object:
        """See Rule."""
        if not isinstance(value, list | tuple) or len(value) != len(self.places):
            raise MalformedError(f"{where}: array of {len(self.places)} expected")
        return tuple(rule.check(item, where) for rule, item in zip(self.places, value, strict=True))


Id = Annotated[bytes, Blob(limits.ID_BYTES, limits.ID_BYTES)]
Bytes32 = Annotated[bytes, Blob(32, 32)]
Bytes64 = Annotated[bytes, Blob(64, 64)]
Name = Annotated[str, Text(1, limits.MAX_NAME_BYTES)]
Uint32 = Annotated[int, Uint(0, 2**32 - 1)]
Uint64 = Annotated[int, Uint(0, 2**64 - 1)]


class Message:
    """Base of every message; see the module."""

    __slots__ = ()

    KIND: ClassVar[int]
    LIMIT: ClassVar[int] = limits.MAX_MESSAGE_BYTES

    def encode(self) -> bytes:
        """Encode the message; raises MalformedError or LimitError when a field breaks its own rule."""
        content: dict[int, object] = {0: self.KIND}
        for key, (name, rule) in enumerate(_rules(type(self)), start=1):
            content[key] = rule.check(getattr(self, name), name)
        data = codec.encode(content)
        if len(data) > self.LIMIT:
            raise LimitError(f"message of {len(data)} bytes, at most {self.LIMIT}")
        return data

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Decode and check; raises MalformedError or LimitError."""
        content = codec.decode(data, cls.LIMIT)
        rules = _rules(cls)
        if not isinstance(content, dict) or content.get(0) != cls.KIND:
            raise MalformedError(f"not a {cls.__name__}")
        if set(content) != set(range(len(rules) + 1)):
            raise MalformedError(f"{cls.__name__}: fields missing or unknown")
        return cls(
            **{name: rule.check(content[key], name) for key, (name, rule) in enumerate(rules, start=1)}
        )


_RULES: dict[type[Message], tuple[tuple[str, Rule], ...]] = {}


def _rules(cls: type[Message]) -> tuple[tuple[str, Rule], ...]:
    if cls not in _RULES:
        _RULES[cls] = _read_rules(cls)
    return _RULES[cls]


def _read_rules(cls: type[Message]) -> tuple[tuple[str, Rule], ...]:
    hints = get_type_hints(cls, include_extras=True)
    found = []
    for field in fields(cls):  # type: ignore[arg-type]  # every concrete message is a dataclass
        rule = hints[field.name].__metadata__[0]
        if not isinstance(rule, Rule):
            raise TypeError(f"{cls.__name__}.{field.name} has no rule")
        found.append((field.name, rule))
    if len(found) > MAX_FIELDS:
        raise TypeError(f"{cls.__name__} has more than {MAX_FIELDS} fields")
    return tuple(found)
