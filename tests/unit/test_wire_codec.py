"""The CBOR subset: one encoding for each value, and no allocation that the sender chooses."""

from __future__ import annotations

import pytest

from cafe_lib.errors import LimitError, MalformedError, ProtocolError
from cafe_lib.image.confidential import Confidential, parse_confidential
from cafe_lib.wire import codec, limits

GOOD = {
    "zero": (0, "00"),
    "largest uint": (2**64 - 1, "1bffffffffffffffff"),
    "bytes": (b"\1\2", "420102"),
    "text": ("\u00e9", "62c3a9"),
    "list": ([1, [b""]], "82018140"),
    "map": ({0: 1, 1: "a"}, "a20001016161"),
    "empty map": ({}, "a0"),
}

BAD = {
    "empty": "",
    "trailing byte": "0000",
    "long form of 1": "1801",
    "two-byte form of 255": "1900ff",
    "long length": "580101",
    "indefinite bytes": "5f4101ff",
    "indefinite list": "9f00ff",
    "indefinite map": "bf0000ff",
    "break alone": "ff",
    "reserved length": "1c",
    "negative": "20",
    "false": "f4",
    "null": "f6",
    "undefined": "f7",
    "half float": "f93c00",
    "double": "fb3ff0000000000000",
    "simple value": "f8ff",
    "tag date": "c074323031332d30332d32315432303a30343a30305a",
    "tag bignum": "c24101",
    "tag regex": "d8236161",
    "tag shared": "d81c80",
    "tag reference": "d81d00",
    "duplicate key": "a200000001",
    "unsorted keys": "a201000000",
    "odd map": "a100",
    "short list": "8200",
    "short text": "6261",
    "cut length": "19ff",
    "lying byte string of 2**63": "5b8000000000000000",
    "lying list of 2**63": "9b8000000000000000",
    "lying list of 2**32": "9affffffff",
    "lying map of 2**63": "bb8000000000000000",
    "bad UTF-8": "61ff",
    "surrogate": "63eda080",
    "list as key": "a18000",
    "map as key": "a1a000",
    "text as key": "a1616100",
    "key 24": "a1181800",
    "key 24 in the second place": "a20000181800",
    "map in a map with a bad key": "a100a1616100",
}


@pytest.mark.parametrize(("value", "encoded"), GOOD.values(), ids=GOOD.keys())
def test_good_value_both_ways(value: object, encoded: str) -> None:
    assert codec.encode(value).hex() == encoded
    assert codec.decode(bytes.fromhex(encoded), 100) == value


@pytest.mark.parametrize("encoded", BAD.values(), ids=BAD.keys())
def test_bad_bytes_are_malformed(encoded: str) -> None:
    with pytest.raises(MalformedError):
        codec.decode(bytes.fromhex(encoded), 1000)


def test_depth_is_bounded() -> None:
    deepest = b"\x81" * (limits.MAX_DEPTH - 1) + b"\x80"
    assert codec.decode(deepest, 100)
    with pytest.raises(LimitError):
        codec.decode(b"\x81" + deepest, 100)


def test_a_million_brackets_do_not_recurse() -> None:
    with pytest.raises(ProtocolError):
        codec.decode(b"\x81" * 1_000_000, 1_000_000)


def test_the_number_of_values_is_bounded() -> None:
    """Megabytes of tiny values would cost seconds and a hundred times their size in memory."""
    most = codec.encode([0] * limits.MAX_ITEMS)
    assert codec.decode(most, len(most)) == [0] * limits.MAX_ITEMS
    for data in (
        codec.encode([0] * (limits.MAX_ITEMS + 1)),
        codec.encode([[[0] * 1000] * 20] * 8),
        codec.encode([dict.fromkeys(range(24), 0)] * 3000),
    ):
        with pytest.raises(LimitError):
            codec.decode(data, len(data))


def test_the_largest_release_fits() -> None:
    parts = Confidential(
        bytes(32), (bytes(32),) * limits.MAX_CHUNKS, (bytes(16),) * limits.MAX_CHUNKS, "text"
    )
    assert parse_confidential(parts.encode()) == parts


def test_length_is_bounded() -> None:
    data = codec.encode(b"12345")
    assert codec.decode(data, len(data)) == b"12345"
    with pytest.raises(LimitError):
        codec.decode(data, len(data) - 1)
