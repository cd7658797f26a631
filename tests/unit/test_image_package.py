"""The package file: read, streamed, resealed; and refused when anything about it is wrong."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_samples import IDENTITY, OTHER, image, package

from cafe_lib.errors import CafeError, DigestError, ProtocolError, SignatureError, VersionError
from cafe_lib.image.confidential import confidential_digest
from cafe_lib.image.manifest import verify_manifest
from cafe_lib.image.package import (
    MAX_COSE_BYTES,
    SEALED,
    WRAPPED,
    PackageStream,
    encode_head,
    open_package,
    parse_head,
    reseal,
    unwrap_confidential,
)
from cafe_lib.wire.keys import KemKeyPair, open_confidential
from cafe_lib.wire.limits import CHUNK_BYTES

PLAIN = bytes(range(251)) * 600  # three chunks, the last one short
Spoil = Callable[[bytearray], None]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sample.cafe"
    package(PLAIN, path)
    return path


def test_a_package_gives_its_chunks(file: Path) -> None:
    opened = open_package(file)
    assert (opened.kind, opened.manifest.name, opened.manifest.image_bytes) == (WRAPPED, "sample", len(PLAIN))
    chunks = list(opened.chunks())
    assert [len(chunk) for chunk in chunks] == [CHUNK_BYTES, CHUNK_BYTES, len(PLAIN) - 2 * CHUNK_BYTES]
    assert tuple(hashlib.sha256(chunk).digest() for chunk in chunks) == opened.manifest.chunk_names


@given(st.lists(st.integers(1, 90000), max_size=10))
def test_a_stream_gives_the_same_chunks_however_it_is_cut(cuts: list[int]) -> None:
    data = SAMPLE
    stream, found, start = PackageStream(), [], 0
    for cut in [*cuts, len(data)]:
        found += list(stream.feed(data[start : start + cut]))
        start += cut
    assert stream.finish().manifest.image_bytes == len(PLAIN)
    assert b"".join(found) == data[-len(PLAIN) :]


def test_the_confidential_part_is_the_publisher_s_only(file: Path) -> None:
    opened = open_package(file)
    plain = unwrap_confidential(IDENTITY.secret, opened.cose, opened.blob)
    assert confidential_digest(plain) == opened.manifest.confidential_digest
    with pytest.raises(SignatureError):
        unwrap_confidential(OTHER.secret, opened.cose, opened.blob)
    with pytest.raises(SignatureError):
        unwrap_confidential(IDENTITY.secret, opened.cose, opened.blob[:-1])


def test_resealing_gives_the_sbs_and_nobody_else_the_confidential_part(file: Path, tmp_path: Path) -> None:
    pair, opened = KemKeyPair.generate(), open_package(file)
    reseal(opened, IDENTITY.secret, pair.public, tmp_path / "sealed.cafe")
    sealed = open_package(tmp_path / "sealed.cafe")
    assert (sealed.kind, sealed.cose) == (SEALED, opened.cose)
    assert list(sealed.chunks()) == list(opened.chunks())
    plain = open_confidential(pair, sealed.secret_binary_id, sealed.blob)
    assert plain == unwrap_confidential(IDENTITY.secret, opened.cose, opened.blob)
    with pytest.raises(SignatureError):
        open_confidential(KemKeyPair.generate(), sealed.secret_binary_id, sealed.blob)
    with pytest.raises(VersionError):
        reseal(sealed, IDENTITY.secret, pair.public, tmp_path / "again.cafe")
    with pytest.raises(SignatureError):
        reseal(opened, OTHER.secret, pair.public, tmp_path / "other.cafe")


def cut(place: int) -> Spoil:
    def spoil(data: bytearray) -> None:
        del data[place:]

    return spoil


def put(place: int, new: bytes) -> Spoil:
    def spoil(data: bytearray) -> None:
        data[place : place + len(new)] = new

    return spoil


def swap_chunks(data: bytearray) -> None:
    start = len(data) - len(PLAIN)
    first, second = data[start : start + CHUNK_BYTES], data[start + CHUNK_BYTES : start + 2 * CHUNK_BYTES]
    data[start : start + 2 * CHUNK_BYTES] = second + first


def repeat_chunk(data: bytearray) -> None:
    start = len(data) - len(PLAIN)
    data[start + CHUNK_BYTES : start + 2 * CHUNK_BYTES] = data[start : start + CHUNK_BYTES]


SPOILT = [
    pytest.param(cut(0), id="empty"),
    pytest.param(cut(8), id="magic only"),
    pytest.param(cut(12), id="cut in the manifest's length"),
    pytest.param(cut(100), id="cut in the manifest"),
    pytest.param(cut(600), id="cut in the confidential part"),
    pytest.param(cut(-1), id="cut in the last chunk"),
    pytest.param(lambda data: data.append(0), id="one byte more"),
    pytest.param(lambda data: data.extend(bytes(CHUNK_BYTES)), id="one chunk more"),
    pytest.param(put(0, b"XAFEPKG1"), id="another magic"),
    pytest.param(put(7, b"2"), id="another version"),
    pytest.param(put(8, b"\0"), id="kind 0"),
    pytest.param(put(8, b"\3"), id="kind 3"),
    pytest.param(put(9, b"\xff\xff\xff\xff"), id="manifest of 4 GiB"),
    pytest.param(put(9, (MAX_COSE_BYTES + 1).to_bytes(4, "big")), id="manifest over its bound"),
    pytest.param(put(9, b"\0\0\0\0"), id="no manifest"),
    pytest.param(put(-1, b"\0"), id="flipped in the last chunk"),
    pytest.param(put(-len(PLAIN), b"\0\0"), id="flipped in the first chunk"),
    pytest.param(swap_chunks, id="chunks swapped"),
    pytest.param(repeat_chunk, id="a chunk twice"),
]


@pytest.mark.case("C01", "C06", "C08")
@pytest.mark.parametrize("spoil", SPOILT)
def test_a_spoilt_package_is_refused_from_disk_and_from_a_stream(spoil: Spoil, file: Path) -> None:
    data = bytearray(file.read_bytes())
    spoil(data)
    file.write_bytes(data)
    with pytest.raises((ProtocolError, DigestError)):
        list(open_package(file).chunks())
    with pytest.raises((ProtocolError, DigestError)):
        stream_whole(bytes(data))


def stream_whole(data: bytes) -> None:
    stream = PackageStream()
    list(stream.feed(data))
    stream.finish()


@pytest.mark.case("C01")
def test_every_changed_byte_of_a_small_package_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "small.cafe"
    good = package(bytes(image()), path)
    start = len(good) - len(image())
    for place in (*range(start), start, start + 777, len(good) - 1):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x40]) + good[place + 1 :])
        with pytest.raises(CafeError):
            accept(path)


def accept(path: Path) -> None:
    """Check what a publisher's own tool checks."""
    opened = open_package(path)
    verify_manifest(opened.cose, IDENTITY.public_key)
    unwrap_confidential(IDENTITY.secret, opened.cose, opened.blob)
    list(opened.chunks())


@pytest.mark.case("C08")
def test_lengths_are_refused_before_anything_is_allocated() -> None:
    with pytest.raises(ProtocolError):
        parse_head(encode_head(WRAPPED, b"", b"")[:9] + b"\xff\xff\xff\xff")
    stream = PackageStream()
    with pytest.raises(ProtocolError):
        list(stream.feed(b"CAFEPKG1\1\x7f\0\0\0"))


@given(st.binary(max_size=400))
def test_any_bytes_give_a_package_or_an_error(data: bytes) -> None:
    with pytest.raises((ProtocolError, DigestError)):
        stream_whole(data)


@given(st.integers(0, 700), st.binary(min_size=1, max_size=20))
def test_changes_in_the_head_give_a_head_or_an_error(place: int, new: bytes) -> None:
    data = bytearray(SAMPLE)
    data[place : place + len(new)] = new
    try:
        head = parse_head(data)
    except ProtocolError:
        return
    assert head is None or head.head_bytes <= len(data) + len(new)


def make_sample() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        return package(PLAIN, Path(directory) / "sample.cafe")


SAMPLE = make_sample()
