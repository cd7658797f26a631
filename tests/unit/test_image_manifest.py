"""The manifest, its signature, and the confidential part."""

from __future__ import annotations

from dataclasses import astuple, fields, replace
from typing import Any

import cbor2
import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st
from image_samples import IDENTITY, OTHER, image, manifest

from cafe_lib.errors import (
    CafeError,
    DigestError,
    LimitError,
    MalformedError,
    ProtocolError,
    SignatureError,
    VersionError,
)
from cafe_lib.image.confidential import (
    Confidential,
    confidential_digest,
    decrypt_chunk_into,
    encrypt_chunk,
    parse_confidential,
)
from cafe_lib.image.manifest import (
    Manifest,
    parse_manifest,
    read_manifest_unverified,
    secret_binary_id,
    sign_manifest,
    verify_manifest,
)
from cafe_lib.wire.limits import CHUNK_BYTES

MANIFEST, CONFIDENTIAL, _ = manifest(image())
COSE = sign_manifest(IDENTITY.signing_key, MANIFEST)
NAMES = [field.name for field in fields(Manifest)]


def raw(**changes: Any) -> bytes:  # noqa: ANN401  # any wrong type
    value = dict(zip(NAMES, astuple(MANIFEST), strict=True)) | changes
    return cbor2.dumps({0: 1, **{i: value[name] for i, name in enumerate(NAMES, 1)}}, canonical=True)


def test_a_manifest_survives_encoding() -> None:
    assert parse_manifest(MANIFEST.encode()) == MANIFEST
    assert raw() == MANIFEST.encode()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": ""}, MalformedError),
        ({"name": "../evil"}, MalformedError),
        ({"name": "Upper"}, MalformedError),
        ({"name": "a" * 64}, MalformedError),
        ({"name": "new\nline"}, MalformedError),
        ({"name": "a\n"}, MalformedError),
        ({"name": b"bytes"}, MalformedError),
        ({"version": ""}, MalformedError),
        ({"version": "1/2"}, MalformedError),
        ({"version": 3}, MalformedError),
        ({"publisher": bytes(31)}, MalformedError),
        ({"publisher": "text"}, MalformedError),
        ({"interface_digest": bytes(33)}, MalformedError),
        ({"confidential_digest": b""}, MalformedError),
        ({"build_mode": 0}, LimitError),
        ({"build_mode": 3}, LimitError),
        ({"build_mode": True}, ProtocolError),
        ({"abi_version": 1}, VersionError),
        ({"abi_version": 2**32}, LimitError),
        ({"isa": 0}, LimitError),
        ({"isa": 4}, LimitError),
        ({"stack_bytes": 0}, LimitError),
        ({"stack_bytes": 2**63}, LimitError),
        ({"stack_bytes": 65537}, MalformedError),
        ({"heap_bytes": 4095}, LimitError),
        ({"heap_bytes": (16 << 30) + 4096}, LimitError),
        ({"slot_count": 0}, LimitError),
        ({"slot_count": 65}, LimitError),
        ({"slot_bytes": 2048}, LimitError),
        ({"slot_bytes": 5000}, MalformedError),
        ({"slot_bytes": (64 << 20) + 4096}, LimitError),
        ({"vcpu_count": 0}, LimitError),
        ({"vcpu_count": 17}, LimitError),
        ({"bulk_bytes": 4096}, MalformedError),
        ({"bulk_bytes": (1 << 30) + (2 << 20)}, LimitError),
        ({"deadline_ms": 0}, LimitError),
        ({"deadline_ms": 3_600_001}, LimitError),
        ({"image_bytes": 0}, LimitError),
        ({"image_bytes": 2**40}, LimitError),
        ({"image_bytes": CHUNK_BYTES + 1}, MalformedError),
        ({"chunk_names": []}, LimitError),
        ({"chunk_names": [bytes(32)] * 2}, MalformedError),
        ({"chunk_names": [bytes(31)]}, MalformedError),
        ({"chunk_names": [7]}, MalformedError),
        ({"chunk_names": bytes(32)}, MalformedError),
        ({"chunk_names": {0: bytes(32)}}, MalformedError),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, dict) else None,
)
@pytest.mark.case("C08")
def test_bad_fields_are_refused(changes: dict[str, Any], error: type[CafeError]) -> None:
    with pytest.raises(error):
        parse_manifest(raw(**changes))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xa0", id="empty map"),
        pytest.param(b"\x80", id="a list"),
        pytest.param(raw() + b"\0", id="trailing byte"),
        pytest.param(raw()[:-1], id="cut short"),
        pytest.param(cbor2.dumps({**cbor2.loads(raw()), 16: 0}, canonical=True), id="one key more"),
        pytest.param(cbor2.dumps({**cbor2.loads(raw()), 0: 2}, canonical=True), id="another format"),
        pytest.param(raw().replace(b"\x00\x01\x01", b"\x00\x18\x01\x01", 1), id="long form"),
        pytest.param(cbor2.dumps({**cbor2.loads(raw()), 16: [[[]]]}, canonical=True), id="nested"),
    ],
)
@pytest.mark.case("C08")
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_manifest(data)


def test_a_signed_manifest_verifies_and_names_the_secret_binary() -> None:
    verified = verify_manifest(COSE, IDENTITY.public_key)
    assert verified.manifest == MANIFEST == read_manifest_unverified(COSE)
    assert verified.secret_binary_id == secret_binary_id(COSE)
    assert sign_manifest(IDENTITY.signing_key, MANIFEST) == COSE


@pytest.mark.case("C08", "C04")
def test_another_publisher_s_key_does_not_verify() -> None:
    with pytest.raises(SignatureError):
        verify_manifest(COSE, OTHER.public_key)
    with pytest.raises(SignatureError):
        verify_manifest(COSE, bytes(31))
    with pytest.raises(DigestError):
        sign_manifest(OTHER.signing_key, MANIFEST)


@pytest.mark.case("C01", "C08")
def test_every_flipped_bit_of_a_signed_manifest_is_refused() -> None:
    for place in range(len(COSE)):
        changed = bytearray(COSE)
        changed[place] ^= 1 << place % 8
        with pytest.raises(CafeError):
            verify_manifest(bytes(changed), IDENTITY.public_key)


@pytest.mark.parametrize(
    "cose",
    [
        pytest.param(b"", id="empty"),
        pytest.param(COSE[1:], id="untagged"),
        pytest.param(COSE[:-64] + bytes(64), id="zero signature"),
        pytest.param(COSE[:-66] + b"\x58\x3f" + bytes(63), id="short signature"),
        pytest.param(COSE + b"\0", id="trailing byte"),
        pytest.param(COSE.replace(b"\xa0", b"\xa1\x04\x41a", 1), id="unprotected header"),
        pytest.param(COSE.replace(b"\x43\xa1\x01\x27", b"\x43\xa1\x01\x26", 1), id="another algorithm"),
        pytest.param(COSE.replace(b"\x43\xa1\x01\x27", b"\x40", 1), id="no algorithm"),
        pytest.param(b"\xd2\x84\x43\xa1\x01\x27\xa0\xf6\x58\x40" + bytes(64), id="detached payload"),
        pytest.param(b"\xd2\x84\x43\xa1\x01\x27\xa0\x5b" + b"\xff" * 8, id="endless payload"),
    ],
)
@pytest.mark.case("C08")
def test_what_is_no_signed_manifest_is_refused(cose: bytes) -> None:
    with pytest.raises(CafeError):
        verify_manifest(cose, IDENTITY.public_key)


@given(st.binary(max_size=300))
def test_any_bytes_give_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_manifest(data)
    with pytest.raises(ProtocolError):
        read_manifest_unverified(data)
    with pytest.raises(ProtocolError):
        parse_confidential(data)


@given(
    st.integers(1, 3),
    st.integers(4, 1000),
    st.integers(1, 64),
    st.integers(1, 3_600_000),
    st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True),
)
def test_manifests_survive_encoding(isa: int, pages: int, slots: int, deadline: int, name: str) -> None:
    made = replace(
        MANIFEST, isa=isa, stack_bytes=4096 * pages, slot_count=slots, deadline_ms=deadline, name=name
    )
    assert parse_manifest(made.encode()) == made


def test_a_confidential_part_survives_encoding_and_hides_its_keys() -> None:
    parsed = parse_confidential(CONFIDENTIAL)
    assert parsed.encode() == CONFIDENTIAL
    assert MANIFEST.confidential_digest == confidential_digest(CONFIDENTIAL)
    assert parsed.keys[0].hex() not in repr(parsed)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({0: 2, 1: bytes(32), 2: [bytes(32)], 3: [bytes(16)], 4: ""}, id="another format"),
        pytest.param({0: 1, 1: bytes(31), 2: [bytes(32)], 3: [bytes(16)], 4: ""}, id="short salt"),
        pytest.param({0: 1, 1: bytes(32), 2: [bytes(16)], 3: [bytes(16)], 4: ""}, id="short key"),
        pytest.param({0: 1, 1: bytes(32), 2: [bytes(32)], 3: [bytes(12)], 4: ""}, id="short tag"),
        pytest.param({0: 1, 1: bytes(32), 2: [bytes(32)] * 2, 3: [bytes(16)], 4: ""}, id="a tag too few"),
        pytest.param({0: 1, 1: bytes(32), 2: [], 3: [], 4: ""}, id="no keys"),
        pytest.param({0: 1, 1: bytes(32), 2: [bytes(32)], 3: [bytes(16)]}, id="a field too few"),
        pytest.param({0: 1, 1: bytes(32), 2: [bytes(32)], 3: [bytes(16)], 4: 7}, id="boundary not text"),
        pytest.param(
            {0: 1, 1: bytes(32), 2: [bytes(32)], 3: [bytes(16)], 4: "x" * 200000}, id="long boundary"
        ),
    ],
)
def test_bad_confidential_parts_are_refused(value: dict[int, object]) -> None:
    with pytest.raises(ProtocolError):
        parse_confidential(cbor2.dumps(value, canonical=True))


def test_equal_chunks_of_one_publisher_coincide_and_only_they() -> None:
    first = encrypt_chunk(IDENTITY.secret, b"x" * 5000)
    assert first == encrypt_chunk(IDENTITY.secret, memoryview(b"x" * 5000))
    others = [encrypt_chunk(IDENTITY.secret, b"x" * 4999), encrypt_chunk(OTHER.secret, b"x" * 5000)]
    assert len({part for _, key, tag, _ in (first, *others) for part in (key, tag)}) == 6


@pytest.mark.parametrize("size", [0, CHUNK_BYTES + 1])
def test_chunks_out_of_bounds_are_refused(size: int) -> None:
    with pytest.raises(LimitError):
        encrypt_chunk(IDENTITY.secret, bytes(size))


@given(st.binary(min_size=1, max_size=2000))
def test_chunks_are_decrypted_in_place(plain: bytes) -> None:
    _, key, tag, ciphertext = encrypt_chunk(IDENTITY.secret, plain)
    target = bytearray(len(plain))
    decrypt_chunk_into(key, tag, ciphertext, memoryview(target))
    assert target == plain


@pytest.mark.case("C01")
@pytest.mark.parametrize("what", ["key", "tag", "ciphertext"])
def test_a_changed_chunk_is_refused_and_leaves_nothing(what: str) -> None:
    _, key, tag, ciphertext = encrypt_chunk(IDENTITY.secret, b"plain text" * 100)
    parts = {"key": key, "tag": tag, "ciphertext": ciphertext}
    parts[what] = bytes([parts[what][0] ^ 1]) + parts[what][1:]
    target = bytearray(b"\xff" * 1000)
    with pytest.raises(SignatureError) as caught:
        decrypt_chunk_into(parts["key"], parts["tag"], parts["ciphertext"], memoryview(target))
    assert target == bytes(1000)
    assert isinstance(caught.value.__cause__, InvalidTag)


def test_a_chunk_must_fit_its_place() -> None:
    _, key, tag, ciphertext = encrypt_chunk(IDENTITY.secret, b"plain")
    for size in (4, 6):
        with pytest.raises(LimitError):
            decrypt_chunk_into(key, tag, ciphertext, memoryview(bytearray(size)))
    with pytest.raises(ProtocolError):
        decrypt_chunk_into(key[:31], tag, ciphertext, memoryview(bytearray(5)))
    with pytest.raises(ProtocolError):
        decrypt_chunk_into(key, tag[:12], ciphertext, memoryview(bytearray(5)))


def test_a_confidential_part_needs_as_many_keys_as_tags() -> None:
    with pytest.raises(MalformedError):
        Confidential(bytes(32), (bytes(32),), (bytes(16), bytes(16)))
