"""Any message that may be written is read back; any bytes give a value or a ProtocolError."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cafe_lib.errors import ProtocolError
from cafe_lib.wire import codec, schema
from cafe_lib.wire import messages as m
from cafe_lib.wire.schema import Message, Rule

MESSAGES: tuple[type[Message], ...] = (
    m.SignedMessage,
    m.MacMessage,
    m.EnrolmentRequest,
    m.EnrolmentChallenge,
    m.EnrolmentProof,
    m.EnrolmentResult,
    m.SessionRequest,
    m.SigningCertificate,
    m.SessionOffer,
    m.Evidence,
    m.AttestResult,
    m.RenewalRequest,
    m.RenewalChallenge,
    m.RenewalResult,
    m.DeployRequest,
    m.Grant,
    m.LeaseEnd,
    m.EventsRequest,
    m.Revocation,
)
PRINTABLE = st.characters(categories=("L", "N", "P", "S"))
VALUES = st.recursive(
    st.integers(0, 2**64 - 1) | st.binary(max_size=300) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 23), inner, max_size=4),
    max_leaves=20,
)


def fitting(rule: Rule) -> st.SearchStrategy[object]:
    """Give values that a rule allows; long byte strings are mostly short ones."""
    match rule:
        case schema.Blob(least, most):
            return st.binary(min_size=least, max_size=max(least, min(most, 200)))
        case schema.Text(least, most, pattern):
            if pattern != ".*":
                return st.from_regex(pattern, fullmatch=True).filter(lambda text: len(text) <= most)
            return st.text(PRINTABLE, min_size=least, max_size=most // 4)
        case schema.Uint(least, most):
            return st.integers(least, most)
        case schema.Items(item, most):
            return st.lists(fitting(item), max_size=min(most, 5)).map(tuple)
        case schema.Row(places):
            return st.tuples(*(fitting(place) for place in places))
    raise AssertionError(rule)


def messages_of(cls: type[Message]) -> st.SearchStrategy[Message]:
    return st.builds(cls, **{name: fitting(rule) for name, rule in schema._rules(cls)})


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_messages_both_ways(cls: type[Message], data: st.DataObject) -> None:
    message = data.draw(messages_of(cls))
    encoded = message.encode()
    assert cls.parse(encoded) == message
    assert cls.parse(encoded).encode() == encoded


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_changed_message_is_another_one_or_none(cls: type[Message], data: st.DataObject) -> None:
    encoded = bytearray(data.draw(messages_of(cls)).encode())
    original = bytes(encoded)
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    try:
        changed = cls.parse(bytes(encoded))
    except ProtocolError:
        return
    assert changed.encode() == bytes(encoded) != original


@given(VALUES)
def test_values_both_ways(value: object) -> None:
    encoded = codec.encode(value)
    assert codec.decode(encoded, len(encoded)) == value


@given(st.binary(max_size=200))
@settings(max_examples=500)
def test_any_bytes_into_the_codec(data: bytes) -> None:
    try:
        value = codec.decode(data, 200)
    except ProtocolError:
        return
    assert codec.encode(value) == data


@given(
    st.lists(
        st.sampled_from([0x00, 0x17, 0x18, 0x40, 0x58, 0x5B, 0x60, 0x81, 0x9B, 0xA1, 0xBB, 0xC2, 0xFF]),
        max_size=60,
    )
)
@settings(max_examples=300)
def test_any_heads_into_the_codec(heads: list[int]) -> None:
    try:
        value = codec.decode(bytes(heads), 60)
    except ProtocolError:
        return
    assert codec.encode(value) == bytes(heads)


@pytest.mark.parametrize("cls", MESSAGES, ids=lambda cls: cls.__name__)
@given(data=st.binary(max_size=100), value=VALUES)
@settings(max_examples=20)
def test_anything_into_a_message(cls: type[Message], data: bytes, value: object) -> None:
    for tried in (data, codec.encode({0: cls.KIND, 1: value}), codec.encode(value)):
        try:
            message = cls.parse(tried)
        except ProtocolError:
            continue
        assert message.encode() == tried
