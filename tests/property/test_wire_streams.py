"""Streams and sealed messages under any cutting, any change: the same records, or a typed error."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from cafe_lib.errors import LimitError, ProtocolError, SignatureError
from cafe_lib.wire import keys, records
from cafe_lib.wire.messages import FrameReader, encode_frame, open_mac, seal_mac

CONTEXT = keys.StreamContext(b"s" * 32, b"t" * 32, b"d" * 32)
SESSION = keys.SessionKeys.derive(b"s" * 32, b"t" * 32)
CHUNKS = st.lists(st.binary(min_size=1, max_size=300), max_size=5)


def write(grant: bytes, chunks: list[bytes]) -> bytes:
    writer = records.RecordWriter(CONTEXT.keys(b"n" * 32))
    parts = [writer.begin(), writer.grant(grant)]
    for chunk in chunks:
        header, tag = writer.chunk(chunk)
        parts += [header, chunk, tag]
    return b"".join([*parts, writer.end()])


def read(pieces: list[bytes]) -> list[tuple[int, bytes]]:
    reader, found = records.RecordReader(CONTEXT), []
    for piece in pieces:
        found += [(record.type, bytes(record.body)) for record in reader.feed(piece)]
    reader.finish()
    return found[:-1]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(st.binary(min_size=1, max_size=500), CHUNKS, st.lists(st.integers(0, 10_000), max_size=10))
def test_stream_in_any_pieces(grant: bytes, chunks: list[bytes], places: list[int]) -> None:
    found = read(cut(write(grant, chunks), places))
    assert found == [(records.GRANT, grant), *((records.CHUNK, chunk) for chunk in chunks)]


@given(CHUNKS, st.integers(0, 100_000), st.lists(st.integers(0, 10_000), max_size=3), st.binary(max_size=40))
def test_changed_stream_is_refused(chunks: list[bytes], place: int, places: list[int], patch: bytes) -> None:
    data = write(b"grant", chunks)
    start = place % len(data)
    changed = data[:start] + patch + data[start + len(patch) :]
    if changed == data:
        changed = data[:start]
    try:
        read(cut(changed, places))
    except (ProtocolError, SignatureError):
        return
    raise AssertionError("a changed stream was accepted")


@given(st.binary(max_size=400))
@settings(max_examples=200)
def test_any_bytes_as_a_stream(data: bytes) -> None:
    for stream in (data, records.MAGIC + b"n" * 32 + data):
        try:
            read([stream])
        except (ProtocolError, SignatureError):
            continue
        raise AssertionError("invented bytes were accepted")


@given(st.integers(0, 2**64 - 1), st.binary(min_size=1, max_size=300))
def test_deploy_record_both_ways(number: int, body: bytes) -> None:
    assert records.decrypt_record(SESSION, records.encrypt_record(SESSION, number, body)) == (number, body)


@given(st.binary(max_size=300))
def test_any_bytes_as_a_deploy_record(data: bytes) -> None:
    try:
        records.decrypt_record(SESSION, data)
    except (ProtocolError, SignatureError):
        return
    raise AssertionError("invented bytes were accepted")


@given(st.binary(min_size=1, max_size=300), st.integers(0, 10_000), st.integers(1, 255))
def test_changed_mac_message(body: bytes, place: int, change: int) -> None:
    data = bytearray(seal_mac(b"k" * 32, "evidence", body))
    data[place % len(data)] ^= change
    try:
        open_mac(b"k" * 32, "evidence", bytes(data))
    except (ProtocolError, SignatureError):
        return
    raise AssertionError("a changed message was accepted")


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=5), st.lists(st.integers(0, 1000), max_size=6))
def test_event_frames_in_any_pieces(events: list[bytes], places: list[int]) -> None:
    reader, found = FrameReader(), []
    for piece in cut(b"".join(map(encode_frame, events)), places):
        found += list(reader.feed(piece))
    reader.finish()
    assert found == events


@given(st.binary(max_size=200))
def test_any_bytes_as_frames(data: bytes) -> None:
    reader = FrameReader()
    try:
        messages = list(reader.feed(data))
    except LimitError:
        return
    assert sum(map(len, messages)) <= len(data)
