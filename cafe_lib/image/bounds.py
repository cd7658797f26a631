"""Checks that the decoders of this package share: each returns its value or raises a ProtocolError."""

from __future__ import annotations

from cafe_lib.errors import LimitError, MalformedError


def bounded_uint(what: str, value: object, low: int, high: int) -> int:
    """Return ``value`` if it is an integer from ``low`` to ``high``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise MalformedError(f"{what} is not an integer")
    if not low <= value <= high:
        raise LimitError(f"{what} is {value}, not between {low} and {high}")
    return value


def page_multiple(what: str, value: object, low: int, high: int) -> int:
    """Return ``value`` if it is a multiple of 4096 bytes from ``low`` to ``high``."""
    number = bounded_uint(what, value, low, high)
    if number % 4096:
        raise MalformedError(f"{what} is {number}, not a multiple of 4096")
    return number


def exact_bytes(what: str, value: object, length: int) -> bytes:
    """Return ``value`` if it is a byte string of ``length`` bytes."""
    if not isinstance(value, bytes):
        raise MalformedError(f"{what} is not a byte string")
    if len(value) != length:
        raise MalformedError(f"{what} has {len(value)} bytes, not {length}")
    return value


def bytes_list(what: str, value: object, length: int, most: int) -> tuple[bytes, ...]:
    """Return ``value`` as a tuple if it holds 1 to ``most`` byte strings of ``length`` bytes each."""
    if not isinstance(value, list | tuple):
        raise MalformedError(f"{what} is not a list")
    if not 1 <= len(value) <= most:
        raise LimitError(f"{what} has {len(value)} items, not between 1 and {most}")
    return tuple(exact_bytes(what, item, length) for item in value)


def exact_keys(what: str, value: object, count: int) -> dict[int, object]:
    """Return ``value`` if it is a map whose keys are 0 to ``count`` - 1."""
    if not isinstance(value, dict) or value.keys() != set(range(count)):
        raise MalformedError(f"{what} does not have exactly the keys 0 to {count - 1}")
    return value
