"""The record stream: strict order, every bit authenticated, an end that cannot be forged or left out."""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from pathlib import Path

import pytest

from cafe_lib.errors import CafeError, LimitError, MalformedError, ProtocolError, SessionError, SignatureError
from cafe_lib.wire import keys, limits, records

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/wire/records.json").read_text())
NONCE = b"n" * 32
CONTEXT = keys.StreamContext(b"s" * 32, b"t" * 32, b"d" * 32)
KEYS = CONTEXT.keys(NONCE)
SESSION = keys.SessionKeys.derive(b"s" * 32, b"t" * 32)
GRANT = b"the grant"
CHUNKS = (b"a" * limits.CHUNK_BYTES, b"b" * limits.CHUNK_BYTES, b"c" * 5)
HEADER = struct.Struct(">BQI")


def write(chunks: tuple[bytes, ...] = CHUNKS, stream_keys: keys.StreamKeys = KEYS) -> list[bytes]:
    """Give the start and each record as one item."""
    writer = records.RecordWriter(stream_keys)
    parts = [writer.begin(), writer.grant(GRANT)]
    for chunk in chunks:
        header, tag = writer.chunk(chunk)
        parts.append(header + chunk + tag)
    return [*parts, writer.end()]


def read(data: bytes, size: int = 1 << 30, context: keys.StreamContext = CONTEXT) -> list[tuple[int, bytes]]:
    reader, found = records.RecordReader(context), []
    for start in range(0, len(data), size):
        for record in reader.feed(data[start : start + size]):
            assert record.number == len(found)
            found.append((record.type, bytes(record.body)))
    reader.finish()
    return found


def forge(kind: int, number: int, body: bytes, length: int | None = None) -> bytes:
    """Make a record with a right MAC and anything in it."""
    covered = HEADER.pack(kind, number, len(body) if length is None else length) + body
    return covered + hmac.digest(KEYS.record_mac, covered, "sha256")


@pytest.mark.parametrize("size", [1, 7, 1000, limits.CHUNK_BYTES, 70_000, 1 << 30])
def test_in_pieces_of_any_size(size: int) -> None:
    chunks = CHUNKS if size > 1 else CHUNKS[2:]
    found = read(b"".join(write(chunks)), size)
    assert found[0] == (records.GRANT, GRANT)
    assert found[1:-1] == [(records.CHUNK, chunk) for chunk in chunks]
    assert found[-1][0] == records.END


def test_recorded_bytes() -> None:
    assert b"".join(write(CHUNKS[2:])).hex() == VECTORS["stream"]
    assert records.encrypt_record(SESSION, 7, b"deploy").hex() == VECTORS["deploy"]


def test_a_chunk_in_one_piece_is_verified_in_place() -> None:
    data = b"".join(write())
    bodies = [record.body for record in records.RecordReader(CONTEXT).feed(data)]
    assert isinstance(bodies[1], memoryview)
    assert bodies[1].obj is data


@pytest.mark.case("C07")
@pytest.mark.parametrize("readonly", [False, True])
def test_what_is_handed_out_cannot_be_changed_from_outside(readonly: bool) -> None:  # noqa: FBT001  # a parameter
    """Another thread rewrites the receive buffer after the check: what was verified is what is used."""
    data = bytearray(b"".join(write()))
    view = memoryview(data).toreadonly() if readonly else memoryview(data)
    found = []
    reader = records.RecordReader(CONTEXT)
    for record in reader.feed(view):
        end = len(START) + sum(map(len, (G, A, B, C)[: record.number + 1]))
        if record.type == records.CHUNK:
            data[:end] = bytes(end)
            found.append(bytes(record.body))
    reader.finish()
    assert found == list(CHUNKS)


@pytest.mark.case("C07")
@pytest.mark.parametrize("place", [0, 5, 12, 20, -1])
def test_a_header_that_changes_between_two_looks(place: int) -> None:
    reader = records.RecordReader(CONTEXT)
    list(reader.feed(START + G))
    changed = bytearray(A)
    changed[place] ^= 1
    with pytest.raises((ProtocolError, SignatureError)):
        reader._verify(KEYS, memoryview(changed))


def test_a_large_grant_in_small_pieces() -> None:
    writer = records.RecordWriter(KEYS)
    grant = b"g" * 1_000_000
    data = writer.begin() + writer.grant(grant) + writer.end()
    assert read(data, 10_000)[0] == (records.GRANT, grant)


START, G, A, B, C, END = write()
OTHER_STREAM = write(stream_keys=CONTEXT.keys(b"m" * 32))


@pytest.mark.case("C06")
@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([], id="nothing"),
        pytest.param([START], id="only the start"),
        pytest.param([START, G, A, B, C], id="final record missing"),
        pytest.param([START, G, A, B, END], id="last chunk missing"),
        pytest.param([START, G, B, C, END], id="first chunk missing"),
        pytest.param([START, A, B, C, END], id="grant missing"),
        pytest.param([G, A, B, C, END], id="start missing"),
        pytest.param([START, G, B, A, C, END], id="chunks swapped"),
        pytest.param([START, A, G, B, C, END], id="grant late"),
        pytest.param([START, G, A, A, B, C, END], id="chunk doubled"),
        pytest.param([START, G, G, A, B, C, END], id="grant doubled"),
        pytest.param([START, G, A, B, C, END, END], id="end doubled"),
        pytest.param([START, G, A, B, C, END, b"\0"], id="a byte after the end"),
        pytest.param([START, G, A, B, C, END[:-1]], id="cut in the last byte"),
        pytest.param([START, G, A, B, C[:-40], END], id="cut in the middle"),
        pytest.param([START, START, G, A, B, C, END], id="start doubled"),
        pytest.param([b"CAFESTR2" + START[8:], G, A, B, C, END], id="another magic"),
        pytest.param([START[:8] + b"m" * 32, G, A, B, C, END], id="another nonce"),
        pytest.param([START, G, A, OTHER_STREAM[3], C, END], id="chunk of another stream"),
        pytest.param([START, G, A, B, C, OTHER_STREAM[-1]], id="end of another stream"),
        pytest.param([START, G, A, B, C, write(CHUNKS[:2])[-1]], id="end of a shorter stream"),
    ],
)
@pytest.mark.parametrize("size", [1 << 30, 4096])
def test_stream_is_refused(parts: list[bytes], size: int) -> None:
    with pytest.raises((ProtocolError, SignatureError)):
        read(b"".join(parts), size)


def _end(count: int, digest: bytes) -> bytes:
    return forge(records.END, 1, struct.pack(">Q", count) + digest)


@pytest.mark.case("C06")
@pytest.mark.parametrize(
    ("record", "error"),
    [
        pytest.param(forge(9, 1, b"x"), MalformedError, id="unknown type"),
        pytest.param(forge(records.DEPLOY, 1, b"x"), MalformedError, id="record of the other direction"),
        pytest.param(forge(records.GRANT, 1, b"x"), MalformedError, id="second grant"),
        pytest.param(forge(records.CHUNK, 2, b"x"), MalformedError, id="number skipped"),
        pytest.param(forge(records.CHUNK, 0, b"x"), MalformedError, id="number again"),
        pytest.param(forge(records.CHUNK, 1, b""), LimitError, id="empty chunk"),
        pytest.param(forge(records.CHUNK, 1, b"x" * 65537), LimitError, id="chunk too long"),
        pytest.param(forge(records.CHUNK, 1, b"x", 2**32 - 1), LimitError, id="lying length"),
        pytest.param(forge(records.END, 1, b"x" * 41), LimitError, id="end too long"),
        pytest.param(forge(records.END, 1, b"x" * 39), MalformedError, id="end too short"),
        pytest.param(_end(2, hmac.digest(KEYS.end_mac, G[-32:], "sha256")), SignatureError, id="wrong count"),
        pytest.param(_end(1, hmac.digest(KEYS.end_mac, b"", "sha256")), SignatureError, id="wrong final MAC"),
        pytest.param(
            _end(1, hmac.digest(KEYS.record_mac, G[-32:], "sha256")), SignatureError, id="wrong key"
        ),
    ],
)
def test_forged_record_with_a_right_mac(record: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        read(START + G + record + END)


def test_the_forge_is_sound() -> None:
    end = _end(1, hmac.digest(KEYS.end_mac, G[-32:], "sha256"))
    assert [kind for kind, _ in read(START + G + end)] == [records.GRANT, records.END]


@pytest.mark.case("C06")
def test_endless_stream_stops_at_the_bound() -> None:
    reader = records.RecordReader(CONTEXT)
    list(reader.feed(START + G))
    reader._number = limits.MAX_CHUNKS + 1
    with pytest.raises(LimitError):
        list(reader.feed(forge(records.CHUNK, limits.MAX_CHUNKS + 1, b"x")))


@pytest.mark.case("C01")
def test_no_flipped_bit_passes() -> None:
    data = b"".join(write((b"12345",)))
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((ProtocolError, SignatureError)):
            read(bytes(changed))


def test_a_header_alone_allocates_nothing() -> None:
    reader = records.RecordReader(CONTEXT)
    claimed = HEADER.pack(records.GRANT, 0, limits.MAX_GRANT_BYTES)
    assert list(reader.feed(START + claimed + b"x" * 1000)) == []
    assert len(reader._buffer) < 100_000
    with pytest.raises(LimitError):
        list(records.RecordReader(CONTEXT).feed(START + HEADER.pack(1, 0, limits.MAX_GRANT_BYTES + 1)))


def test_nothing_is_accepted_after_an_error() -> None:
    reader = records.RecordReader(CONTEXT)
    with pytest.raises(MalformedError):
        list(reader.feed(START + END))
    with pytest.raises(SessionError):
        list(reader.feed(G))
    with pytest.raises(MalformedError):
        reader.finish()


def test_ended_only_after_the_end() -> None:
    reader = records.RecordReader(CONTEXT)
    for part in (START, G, A, B, C):
        list(reader.feed(part))
        assert not reader.ended
    list(reader.feed(END))
    assert reader.ended


def test_an_unread_iterator_is_no_success() -> None:
    reader = records.RecordReader(CONTEXT)
    next(reader.feed(b"".join((START, G, A, B, C, END))))
    with pytest.raises(MalformedError):
        reader.finish()


def test_the_grant_is_encrypted() -> None:
    assert GRANT not in G
    assert CHUNKS[2] in C


def test_writer_keeps_order_and_bounds() -> None:
    writer = records.RecordWriter(KEYS)
    with pytest.raises(SessionError):
        writer.chunk(b"x")
    writer.grant(b"g")
    with pytest.raises(SessionError):
        writer.grant(b"g")
    for body in (b"", b"x" * (limits.CHUNK_BYTES + 1)):
        with pytest.raises(LimitError):
            writer.chunk(body)


# ------------------------------------------------------------------ the deploy record


def test_deploy_record() -> None:
    data = records.encrypt_record(SESSION, 7, b"deploy")
    assert records.decrypt_record(SESSION, data) == (7, b"deploy")
    assert b"deploy" not in data
    assert records.encrypt_record(SESSION, 8, b"deploy")[13:19] != data[13:19]


@pytest.mark.case("A24")
def test_no_flipped_bit_of_a_deploy_record_passes() -> None:
    data = records.encrypt_record(SESSION, 7, b"deploy")
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((ProtocolError, SignatureError)):
            records.decrypt_record(SESSION, bytes(changed))
    with pytest.raises(SignatureError):
        records.decrypt_record(keys.SessionKeys.derive(b"s" * 32, b"T" * 32), data)


@pytest.mark.parametrize("size", [0, 1, 13, 45, 46])
def test_deploy_record_cut(size: int) -> None:
    with pytest.raises(CafeError):
        records.decrypt_record(SESSION, records.encrypt_record(SESSION, 7, b"deploy")[:size])


def test_deploy_record_bounds() -> None:
    for number, body in ((-1, b"x"), (2**64, b"x"), (0, b""), (0, b"x" * (limits.MAX_MESSAGE_BYTES + 1))):
        with pytest.raises(LimitError):
            records.encrypt_record(SESSION, number, body)
    with pytest.raises(LimitError):
        records.decrypt_record(SESSION, b"x" * (limits.MAX_MESSAGE_BYTES + 100))


def test_counter_blocks_never_meet() -> None:
    """Record n uses blocks n * 2**32 and up; the longest record has far fewer than 2**32."""
    assert limits.MAX_GRANT_BYTES // 16 < 2**32
    first = records.encrypt_record(SESSION, 1, bytes(limits.MAX_MESSAGE_BYTES))[13:-32]
    second = records.encrypt_record(SESSION, 2, bytes(limits.MAX_MESSAGE_BYTES))[13:-32]
    blocks = {first[at : at + 16] for at in range(0, len(first), 16)}
    assert blocks.isdisjoint(second[at : at + 16] for at in range(0, len(second), 16))
    assert hashlib.sha256(first).digest() != hashlib.sha256(second).digest()
