"""The key schedule: recorded values, and that everything said goes into every key."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import itertools
import json
from pathlib import Path

import pytest

from cafe_lib.errors import MalformedError, SignatureError
from cafe_lib.wire import keys, limits

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/wire/keys.json").read_text())
SECRET, TRANSCRIPT, DIGEST, NONCE = b"s" * 32, b"t" * 32, b"d" * 32, b"n" * 32


def schedule() -> dict[str, str]:
    """Everything that is derived, from fixed inputs."""
    transcript = keys.transcript_hash(b"request", b"offer", b"\1" * 16, b"\2" * 32)
    session = keys.SessionKeys.derive(SECRET, TRANSCRIPT)
    stream = keys.StreamKeys.derive(SECRET, TRANSCRIPT, DIGEST, NONCE)
    values = {
        "transcript": transcript,
        "qualifying data": keys.qualifying_data(transcript),
        "renewal qualifying data": keys.renewal_qualifying_data(transcript, NONCE),
        "enrolment statement": keys.enrolment_statement(b"request"),
        "enrolment proof": keys.enrolment_proof(SECRET, b"request"),
        "session secret info": keys.session_secret_info(b"request", b"\1" * 16),
        "release key id": keys.release_key_id(b"\3" * limits.KEM_PUBLIC_BYTES),
        "kem public": keys.KemKeyPair.from_private_bytes(bytes(range(96))).public,
    }
    for name, owner in (("session", session), ("stream", stream)):
        values |= {f"{name} {field.name}": getattr(owner, field.name) for field in dataclasses.fields(owner)}
    return {name: value.hex() for name, value in values.items()}


def test_recorded_values() -> None:
    assert schedule() == VECTORS


def test_all_keys_differ() -> None:
    session = keys.SessionKeys.derive(SECRET, TRANSCRIPT)
    stream = keys.StreamKeys.derive(SECRET, TRANSCRIPT, DIGEST, NONCE)
    found = [getattr(one, field.name) for one in (session, stream) for field in dataclasses.fields(one)]
    assert len(set(found)) == len(found) == 8
    assert all(len(key) == 32 for key in found)


@pytest.mark.case("A22", "A24")
def test_transcript_covers_every_part_and_no_split_is_ambiguous() -> None:
    base = (b"request", b"offer", b"h" * 16, b"r" * 32)
    hashes = {keys.transcript_hash(*base)}
    for place in range(4):
        changed = list(base)
        changed[place] = changed[place][:-1] + b"!"
        hashes.add(keys.transcript_hash(*changed))
    hashes.add(keys.transcript_hash(b"reques", b"toffer", *base[2:]))
    hashes.add(keys.transcript_hash(base[1], base[0], *base[2:]))
    assert len(hashes) == 7


@pytest.mark.case("A19")
def test_quotes_for_sessions_and_renewals_never_coincide() -> None:
    asks = [keys.qualifying_data(TRANSCRIPT), keys.qualifying_data(DIGEST)]
    asks += [keys.renewal_qualifying_data(TRANSCRIPT, nonce) for nonce in (NONCE, DIGEST)]
    assert len(set(asks)) == 4


@pytest.mark.case("C04")
def test_stream_keys_depend_on_everything() -> None:
    found = set()
    for changed in itertools.product(
        (SECRET, b"S" * 32), (TRANSCRIPT, b"T" * 32), (DIGEST, b"D" * 32), (NONCE, b"N" * 32)
    ):
        found.add(keys.StreamKeys.derive(*changed).record_mac)
    assert len(found) == 16


def test_keys_are_not_shown() -> None:
    shown = repr(
        (
            keys.SessionKeys.derive(SECRET, TRANSCRIPT),
            keys.StreamKeys.derive(SECRET, TRANSCRIPT, DIGEST, NONCE),
            keys.StreamContext(SECRET, TRANSCRIPT, DIGEST),
        )
    )
    assert "ssss" not in shown
    assert keys.SessionKeys.derive(SECRET, TRANSCRIPT).client_mac.hex()[:8] not in shown
    assert "_mac=" not in shown


# ------------------------------------------------------------------ HPKE


@pytest.fixture(scope="module")
def pair() -> keys.KemKeyPair:
    return keys.KemKeyPair.generate()


def test_seal_and_open(pair: keys.KemKeyPair) -> None:
    sealed = keys.seal_secret(pair.public, SECRET, b"info")
    assert len(sealed) == limits.SEALED_SECRET_BYTES
    assert keys.open_secret(pair, sealed, b"info") == SECRET
    restored = keys.KemKeyPair.from_private_bytes(pair.private_bytes())
    assert restored.public == pair.public
    assert keys.open_secret(restored, sealed, b"info") == SECRET


@pytest.mark.case("A24")
def test_sealed_to_another_key_or_context(pair: keys.KemKeyPair) -> None:
    sealed = keys.seal_secret(pair.public, SECRET, b"info")
    for other, data, info in (
        (keys.KemKeyPair.generate(), sealed, b"info"),
        (pair, sealed, b"other"),
        (pair, sealed[:-1], b"info"),
        (pair, sealed + b"\0", b"info"),
        (pair, b"", b"info"),
    ):
        with pytest.raises(SignatureError):
            keys.open_secret(other, data, info)


def test_sampled_bit_flips(pair: keys.KemKeyPair) -> None:
    sealed = keys.seal_secret(pair.public, SECRET, b"info")
    for position in range(0, len(sealed), 37):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(SignatureError):
            keys.open_secret(pair, bytes(changed), b"info")


@pytest.mark.parametrize(
    "public",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\1" * 1215, id="short"),
        pytest.param(b"\xff" * 1216, id="coefficients out of range"),
    ],
)
def test_bad_public_key(public: bytes) -> None:
    with pytest.raises(MalformedError):
        keys.seal_secret(public, SECRET, b"info")


def test_low_order_curve_point(pair: keys.KemKeyPair) -> None:
    with pytest.raises(MalformedError):
        keys.seal_secret(pair.public[:1184] + bytes(32), SECRET, b"info")


def test_bad_private_key() -> None:
    with pytest.raises(MalformedError):
        keys.KemKeyPair.from_private_bytes(b"\1" * 95)


def test_confidential_is_bound_to_release_and_key(pair: keys.KemKeyPair) -> None:
    sealed = keys.seal_confidential(pair.public, b"i" * 32, b"chunk keys")
    assert keys.open_confidential(pair, b"i" * 32, sealed) == b"chunk keys"
    with pytest.raises(SignatureError):
        keys.open_confidential(pair, b"j" * 32, sealed)
    with pytest.raises(SignatureError):
        keys.open_confidential(keys.KemKeyPair.generate(), b"i" * 32, sealed)


def test_the_schedule_by_hand() -> None:
    """RFC 5869 written out, as a second implementation would."""
    salt = TRANSCRIPT + DIGEST + NONCE
    extracted = hmac.digest(salt, SECRET, "sha256")
    expected = hmac.digest(extracted, b"cafe record mac v1\x01", "sha256")
    assert keys.StreamKeys.derive(SECRET, TRANSCRIPT, DIGEST, NONCE).record_mac == expected
    parts = (b"request", b"offer", b"\1" * 16, b"\2" * 32)
    joined = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    assert keys.transcript_hash(*parts) == hashlib.sha256(b"cafe transcript v1" + joined).digest()
