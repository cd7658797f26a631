"""Every message: both ways, its bounds, its envelope."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cafe_lib.errors import (
    LimitError,
    MalformedError,
    ProtocolError,
    SessionError,
    SignatureError,
    VersionError,
)
from cafe_lib.wire import codec, limits
from cafe_lib.wire import messages as m
from cafe_lib.wire.schema import Message

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/wire/messages.json").read_text())
ID, ID2, B32, B64 = b"\1" * 16, b"\2" * 16, b"\3" * 32, b"\4" * 64
PCRS = ((11, (0, 7, 23)), (12, (1,)))
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
ROOT = Ed25519PrivateKey.from_private_bytes(b"r" * 32)

SAMPLES: dict[str, Message] = {
    "signed message": m.SignedMessage(b"body", B64),
    "mac message": m.MacMessage(b"body", B32),
    "enrolment request": m.EnrolmentRequest("host-1", b"ek", b"ak", B32, B32),
    "enrolment challenge": m.EnrolmentChallenge(ID, b"blob", b"seed"),
    "enrolment proof": m.EnrolmentProof(ID, B32, B64),
    "enrolment result": m.EnrolmentResult(ID, B32),
    "session request": m.SessionRequest(ID, b"\5" * limits.KEM_PUBLIC_BYTES, B32, (1, 2)),
    "signing certificate": m.SigningCertificate(B32, 1_700_000_000, 1_800_000_000),
    "session offer": m.SessionOffer(
        ID, B32, PCRS, b"\6" * limits.SEALED_SECRET_BYTES, 1, 3600, b"certificate"
    ),
    "evidence": m.Evidence(ID, b"attest", b"signature", ((11, 0, B32), (4, 1, b"\7" * 20)), b"log"),
    "attest result": m.AttestResult(ID, 0, "policy", 3, 0),
    "renewal request": m.RenewalRequest(ID, 1),
    "renewal challenge": m.RenewalChallenge(ID, B32, 1),
    "renewal result": m.RenewalResult(ID, ((ID, 600), (ID2, 60)), (B32[:16],), 1),
    "deploy request": m.DeployRequest(ID, ID2, "vm-1", B32, (B32,)),
    "grant": m.Grant(b"cose", b"keys", ID, ID2, ID, "vm-1", "tenant", B32, 1, ID, 600, "acme/totp@1.0", B32),
    "lease end": m.LeaseEnd(ID, ID2),
    "events request": m.EventsRequest(ID, 7),
    "revocation": m.Revocation(9, ID, "licence", (ID, ID2), b""),
}

BAD_FIELDS = {
    "short nonce": ("session request", "agent_nonce", b"\1" * 31, MalformedError),
    "zero-padded nonce": ("session request", "agent_nonce", b"\1" * 32 + b"\0", LimitError),
    "nonce as text": ("session request", "agent_nonce", "1" * 32, MalformedError),
    "short KEM key": ("session request", "kem_public", b"\1" * 1215, MalformedError),
    "too many suites": ("session request", "suites", (1,) * 9, LimitError),
    "suite as text": ("session request", "suites", ("1",), MalformedError),
    "suites not a list": ("session request", "suites", 1, MalformedError),
    "empty name": ("enrolment request", "name", "", MalformedError),
    "long name": ("enrolment request", "name", "n" * 65, LimitError),
    "long name in UTF-8": ("enrolment request", "name", "\u00e9" * 33, LimitError),
    "control character": ("enrolment request", "name", "a\nb", MalformedError),
    "name as bytes": ("enrolment request", "name", b"host", MalformedError),
    "huge EK": ("enrolment request", "ek_public", b"e" * 1025, LimitError),
    "PCR 24": ("session offer", "pcr_selection", ((11, (24,)),), LimitError),
    "bank of three": ("session offer", "pcr_selection", ((11, (0,), 1),), MalformedError),
    "five banks": ("session offer", "pcr_selection", ((11, (0,)),) * 5, LimitError),
    "algorithm 0": ("session offer", "pcr_selection", ((0, (0,)),), LimitError),
    "expiry 0": ("session offer", "expires_in", 0, LimitError),
    "expiry for ever": ("session offer", "expires_in", 2**40, LimitError),
    "97 PCR values": ("evidence", "pcr_values", ((11, 0, B32),) * 97, LimitError),
    "PCR value of 19 bytes": ("evidence", "pcr_values", ((11, 0, b"1" * 19),), MalformedError),
    "huge event log": ("evidence", "event_log", b"l" * (limits.MAX_EVENT_LOG_BYTES + 1), LimitError),
    "huge attest": ("evidence", "attest", b"a" * (limits.MAX_TPM_ATTEST_BYTES + 1), LimitError),
    "status 2": ("attest result", "status", 2, LimitError),
    "status true": ("attest result", "status", True, MalformedError),
    "reason with blanks": ("attest result", "reason", "no way", MalformedError),
    "build mode 0": ("grant", "build_mode", 0, LimitError),
    "build mode 3": ("grant", "build_mode", 3, LimitError),
    "lease of 0 s": ("grant", "lease_seconds", 0, LimitError),
    "lease for ever": ("grant", "lease_seconds", limits.MAX_LEASE_SECONDS + 1, LimitError),
    "unknown revocation": ("revocation", "kind", "whim", MalformedError),
    "revocation that nobody sends": ("revocation", "kind", "shutdown", MalformedError),
    "revocation number over 64 bits": ("revocation", "number", 2**64, LimitError),
    "negative number": ("renewal request", "number", -1, LimitError),
    "lease id of 15 bytes": ("renewal result", "ended", (b"1" * 15,), MalformedError),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_both_ways(name: str) -> None:
    message = SAMPLES[name]
    data = message.encode()
    assert type(message).parse(data) == message
    assert data.hex() == VECTORS[name]


def test_every_type_number_is_used_once() -> None:
    kinds = [message.KIND for message in SAMPLES.values()]
    assert len(set(kinds)) == len(kinds)


@pytest.mark.parametrize("name", SAMPLES)
def test_no_message_passes_for_another(name: str) -> None:
    data = SAMPLES[name].encode()
    for other in SAMPLES.values():
        if type(other) is not type(SAMPLES[name]):
            with pytest.raises(ProtocolError):
                type(other).parse(data)


@pytest.mark.parametrize("name", SAMPLES)
def test_fields_missing_or_added(name: str) -> None:
    cls = type(SAMPLES[name])
    content = codec.decode(SAMPLES[name].encode(), 10**6)
    assert isinstance(content, dict)
    last = max(content)
    for changed in (
        {key: value for key, value in content.items() if key != last},
        content | {last + 1: 0},
        content | {"name": 0},
        {key: value for key, value in content.items() if key != 0},
    ):
        with pytest.raises(ProtocolError):
            cls.parse(codec.encode(changed))


@pytest.mark.case("A21")
@pytest.mark.parametrize(("name", "field", "value", "error"), BAD_FIELDS.values(), ids=BAD_FIELDS.keys())
def test_bad_field_both_ways(name: str, field: str, value: object, error: type[Exception]) -> None:
    message = dataclasses.replace(SAMPLES[name], **{field: value})
    with pytest.raises(error):
        message.encode()
    if isinstance(value, int) and value < 0:
        return  # the codec has no form for it
    names = [one.name for one in dataclasses.fields(message)]
    content = {0: message.KIND} | {key: getattr(message, one) for key, one in enumerate(names, start=1)}
    try:
        data = codec.encode(content)
    except OverflowError:
        return
    with pytest.raises(ProtocolError):
        type(message).parse(data)


def test_secrets_are_not_shown() -> None:
    grant = dataclasses.replace(SAMPLES["grant"], confidential=b"planted")
    assert "planted" not in repr(grant)


# ------------------------------------------------------------------ envelopes


def test_signed_message() -> None:
    data = m.sign_message(KEY, "session request", b"body")
    public = KEY.public_key().public_bytes_raw()
    assert m.verify_signed(public, "session request", data) == b"body"
    with pytest.raises(SignatureError):
        m.verify_signed(public, "session offer", data)
    with pytest.raises(SignatureError):
        m.verify_signed(ROOT.public_key().public_bytes_raw(), "session request", data)
    with pytest.raises(SignatureError):
        m.verify_signed(b"short", "session request", data)


def test_mac_message() -> None:
    data = m.seal_mac(B32, "evidence", b"body")
    assert m.open_mac(B32, "evidence", data) == b"body"
    with pytest.raises(SignatureError):
        m.open_mac(B32, "attest result", data)
    with pytest.raises(SignatureError):
        m.open_mac(b"\0" * 32, "evidence", data)


def test_every_bit_of_an_envelope_counts() -> None:
    signed, mac = m.sign_message(KEY, "x", b"body"), m.seal_mac(B32, "x", b"body")
    public = KEY.public_key().public_bytes_raw()
    for bit in range(8 * len(signed)):
        with pytest.raises((ProtocolError, SignatureError)):
            m.verify_signed(public, "x", _flip(signed, bit))
    for bit in range(8 * len(mac)):
        with pytest.raises((ProtocolError, SignatureError)):
            m.open_mac(B32, "x", _flip(mac, bit))


def test_a_huge_message_is_refused_unread() -> None:
    with pytest.raises(LimitError):
        m.LeaseEnd.open(B32, m.seal_mac(B32, "lease end", b"\0" * (limits.MAX_MESSAGE_BYTES + 1)))
    with pytest.raises(LimitError):
        m.SignedMessage.parse(b"\0" * (limits.MAX_MESSAGE_BYTES + 1000))


def _flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# ------------------------------------------------------------------ the SBS's identity


def _offer(certificate: bytes, suite: int = 1, key: Ed25519PrivateKey = KEY) -> bytes:
    sample = SAMPLES["session offer"]
    assert isinstance(sample, m.SessionOffer)
    return dataclasses.replace(sample, certificate=certificate, suite=suite).sign(key)


def _certificate(key: Ed25519PrivateKey = ROOT, start: int = 100, end: int = 200) -> bytes:
    return m.SigningCertificate(KEY.public_key().public_bytes_raw(), start, end).sign(key)


ROOT_PUBLIC = ROOT.public_key().public_bytes_raw()


def test_offer_verifies_through_its_certificate() -> None:
    offer, certificate = m.verify_offer(ROOT_PUBLIC, _offer(_certificate()), 150)
    assert offer.session_id == ID
    assert certificate.public_key == KEY.public_key().public_bytes_raw()


@pytest.mark.parametrize(
    ("data", "now", "error"),
    [
        pytest.param(_offer(_certificate(KEY)), 150, SignatureError, id="certificate by another root"),
        pytest.param(_offer(_certificate(), key=ROOT), 150, SignatureError, id="offer by another key"),
        pytest.param(_offer(_certificate()), 99, SessionError, id="not yet valid"),
        pytest.param(_offer(_certificate()), 201, SessionError, id="expired"),
        pytest.param(_offer(_certificate(start=200, end=100)), 150, SessionError, id="never valid"),
        pytest.param(_offer(_certificate(), suite=2), 150, VersionError, id="unknown suite"),
        pytest.param(_offer(b"\0"), 150, MalformedError, id="no certificate"),
    ],
)
def test_offer_is_refused(data: bytes, now: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        m.verify_offer(ROOT_PUBLIC, data, now)


def test_suites() -> None:
    assert m.choose_suite((9, 1)) == m.SUITE_HYBRID
    with pytest.raises(VersionError):
        m.choose_suite((2, 3))


# ------------------------------------------------------------------ event frames


@pytest.mark.parametrize("size", [1, 3, 100])
def test_frames_in_any_pieces(size: int) -> None:
    stream = b"".join((m.encode_frame(b"first"), b"\0" * 4, m.encode_frame(b"second"), b"\0" * 4))
    reader, found = m.FrameReader(), []
    for start in range(0, len(stream), size):
        found += list(reader.feed(stream[start : start + size]))
    reader.finish()
    assert found == [b"first", b"second"]


def test_bad_frames() -> None:
    with pytest.raises(LimitError):
        list(m.FrameReader().feed(b"\xff\xff\xff\xff"))
    with pytest.raises(LimitError):
        m.encode_frame(b"")
    with pytest.raises(LimitError):
        m.encode_frame(b"e" * (limits.MAX_EVENT_BYTES + 1))
    cut = m.FrameReader()
    assert list(cut.feed(m.encode_frame(b"event")[:-1])) == []
    with pytest.raises(MalformedError):
        cut.finish()
