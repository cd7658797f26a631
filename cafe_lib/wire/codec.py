"""Deterministic CBOR (RFC 8949 section 4.2.1) of unsigned integers, strings, arrays and maps only.

cbor2 does the coding. Before it sees foreign bytes, a scan refuses what the subset lacks (tags, floats,
negative numbers, indefinite lengths), every length beyond the input, and more values than any message has, so
that neither memory nor time is chosen by the sender. After it, the value is encoded again and compared:
duplicates, long forms and unsorted keys cannot survive that.
"""

from __future__ import annotations

from typing import Final

import cbor2

from cafe_lib.errors import LimitError, MalformedError
from cafe_lib.wire import limits

_UINT, _BYTES, _TEXT, _ARRAY, _MAP = 0, 2, 3, 4, 5
_SHORT: Final = 24
MAX_KEY: Final = 23
_WIDTHS: Final = {24: 1, 25: 2, 26: 4, 27: 8}


def encode(value: object) -> bytes:
    """Encode ints, bytes, str, lists or tuples, and dicts. The one encoding of `value`."""
    return cbor2.dumps(value, canonical=True)


def decode(data: bytes, limit: int) -> object:
    """Decode exactly one value of at most `limit` bytes.

    Raises LimitError (too long, too deep, too many values) or MalformedError (not the one encoding of such a
    value).
    """
    if len(data) > limit:
        raise LimitError(f"message of {len(data)} bytes, at most {limit}")
    if type(data) is not bytes:
        data = bytes(data)
    _scan(data)
    try:
        value: object = cbor2.loads(data)
        again = encode(value)
    except (cbor2.CBORError, ValueError, TypeError, RecursionError) as error:
        raise MalformedError("the bytes are not CBOR") from error
    if again != data:
        raise MalformedError("not the deterministic encoding")
    return value


def _scan(data: bytes) -> None:
    """Walk over the heads only, keeping for each open array or map what it still lacks."""
    missing, in_map = [1], [False]
    position, room = 0, limits.MAX_ITEMS
    while missing:
        if missing[-1] == 0:
            missing.pop()
            in_map.pop()
            continue
        is_key = in_map[-1] and missing[-1] % 2 == 0
        missing[-1] -= 1
        major, argument, position = _head(data, position)
        if is_key and (major != _UINT or argument > MAX_KEY):
            raise MalformedError("a key that is not a number from 0 to 23")
        if major in (_BYTES, _TEXT):
            if argument > len(data) - position:
                raise MalformedError("a string reaches beyond the message")
            position += argument
        elif major in (_ARRAY, _MAP):
            missing.append(_items(major, argument, len(data) - position, room))
            room -= missing[-1]
            in_map.append(major == _MAP)
            if len(missing) > limits.MAX_DEPTH + 1:
                raise LimitError("nested too deeply")
        elif major != _UINT:
            raise MalformedError("a CBOR type the protocol does not use")
    if position != len(data):
        raise MalformedError("bytes after the end of the message")


def _items(major: int, argument: int, rest: int, room: int) -> int:
    items = 2 * argument if major == _MAP else argument
    if items > rest:
        raise MalformedError("more items than the message has bytes")
    if items > room:
        raise LimitError("more values than any message has")
    return items


def _head(data: bytes, position: int) -> tuple[int, int, int]:
    if position >= len(data):
        raise MalformedError("the message is cut short")
    major, short = divmod(data[position], 32)
    position += 1
    if short < _SHORT:
        return major, short, position
    width = _WIDTHS.get(short)
    if width is None:
        raise MalformedError("an indefinite or reserved length")
    end = position + width
    if end > len(data):
        raise MalformedError("the message is cut short")
    return major, int.from_bytes(data[position:end], "big"), end
