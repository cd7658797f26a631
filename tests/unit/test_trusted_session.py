"""The agent's side of a session: who speaks, for which session, in which order."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cafe_lib.errors import (
    CafeError,
    LicenceError,
    MalformedError,
    PolicyError,
    QuoteError,
    SessionError,
    SignatureError,
    VersionError,
)
from cafe_lib.wire import keys, records
from cafe_lib.wire import messages as m
from hypervisor_agent.trusted import LaunchAsk, TrustedSession

NOW = 1000
HOST, SESSION, LEASE = b"h" * 16, b"s" * 16, b"l" * 16
SELECTION = ((11, (7, 11)),)
VALUES = ((11, 7, b"\1" * 32), (11, 11, b"\2" * 32))
HOST_KEY, ROOT, SIGNER, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in range(4))


class Sbs:
    """An SBS that can be made to lie in any part."""

    def __init__(self, root: Ed25519PrivateKey = ROOT) -> None:
        self.root = root
        self.secret = b"session secret of 32 bytes......"

    def offer(self, request: bytes, **changes: object) -> bytes:
        said = m.SessionRequest.read_unverified(request)
        certificate = m.SigningCertificate(SIGNER.public_key().public_bytes_raw(), 0, 2 * NOW).sign(self.root)
        info = keys.session_secret_info(request, SESSION)
        sealed = keys.seal_secret(said.kem_public, self.secret, info)
        offer = m.SessionOffer(SESSION, b"n" * 32, SELECTION, sealed, 1, 60, certificate)
        data = dataclasses.replace(offer, **changes).sign(SIGNER)  # type: ignore[arg-type]
        self.transcript = keys.transcript_hash(
            request, data, said.host_id, self.root.public_key().public_bytes_raw()
        )
        self.keys = keys.SessionKeys.derive(self.secret, self.transcript)
        return data

    def result(self, **changes: object) -> bytes:
        result = m.AttestResult(SESSION, m.STATUS_ACCEPTED, "", 1, 60)
        return dataclasses.replace(result, **changes).seal(self.keys.server_mac)  # type: ignore[arg-type]


def begin(host_id: bytes = HOST, root: Ed25519PrivateKey = ROOT) -> tuple[TrustedSession, bytes]:
    kem = keys.KemKeyPair.generate()
    request = m.SessionRequest(host_id, kem.public, b"a" * 32, m.SUITES).sign(HOST_KEY)
    return TrustedSession(host_id, root.public_key().public_bytes_raw(), request, kem), request


def attested() -> tuple[TrustedSession, Sbs]:
    session, request = begin()
    sbs = Sbs()
    session.accept_offer(sbs.offer(request), NOW)
    session.seal_evidence(b"attest", b"signature", VALUES)
    session.accept_result(sbs.result())
    return session, sbs


def test_the_right_order() -> None:
    session, request = begin()
    sbs = Sbs()
    ask = session.accept_offer(sbs.offer(request), NOW)
    assert ask.qualifying_data == keys.qualifying_data(sbs.transcript)
    assert ask.selection == SELECTION
    evidence = m.Evidence.open(
        sbs.keys.client_mac, session.seal_evidence(b"attest", b"signature", VALUES, b"log")
    )
    assert (evidence.session_id, evidence.pcr_values) == (SESSION, VALUES)
    assert not session.accepted
    assert session.accept_result(sbs.result()).policy_version == 1
    assert session.accepted


def test_request_of_another_host_or_key() -> None:
    _, request = begin()
    for host_id, kem in ((b"H" * 16, None), (HOST, keys.KemKeyPair.generate())):
        with pytest.raises(SessionError):
            TrustedSession(host_id, b"r" * 32, request, kem or keys.KemKeyPair.generate())


@pytest.mark.case("A24")
def test_another_server_identity() -> None:
    session, request = begin()
    with pytest.raises(SignatureError):
        session.accept_offer(Sbs(root=OTHER).offer(request), NOW)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({"session_id": b"S" * 16}, SignatureError, id="secret sealed for another session"),
        pytest.param({"pcr_selection": ()}, SessionError, id="no PCR"),
        pytest.param({"pcr_selection": ((11, ()),)}, SessionError, id="an empty bank"),
        pytest.param({"suite": 9}, VersionError, id="unknown suite"),
        pytest.param({"sealed_secret": b"\0" * 1168}, SignatureError, id="sealed to nobody"),
    ],
)
def test_offer_is_refused_and_the_session_over(changes: dict[str, object], error: type[CafeError]) -> None:
    session, request = begin()
    sbs = Sbs()
    with pytest.raises(error):
        session.accept_offer(sbs.offer(request, **changes), NOW)
    with pytest.raises(SessionError):
        session.accept_offer(sbs.offer(request), NOW)


@pytest.mark.case("A19", "A24")
def test_offer_for_another_request() -> None:
    """An honest offer, for a session somebody else asked for: the secret inside does not open."""
    session, _ = begin()
    _, other_request = begin()
    with pytest.raises(SignatureError):
        session.accept_offer(Sbs().offer(other_request), NOW)


def test_certificate_out_of_time() -> None:
    session, request = begin()
    with pytest.raises(SessionError):
        session.accept_offer(Sbs().offer(request), 2 * NOW + 1)


@pytest.mark.case("A22", "A24")
def test_every_change_of_the_channel_changes_what_is_quoted() -> None:
    """The quote covers the agent's key, the offer, the host and the SBS: none can be swapped after it."""
    kem, other = keys.KemKeyPair.generate(), keys.KemKeyPair.generate()
    asks = set()
    sbs = Sbs()
    for pair, nonce, changes in (
        (kem, b"a", {}),
        (other, b"a", {}),
        (kem, b"b", {}),
        (kem, b"a", {"sbs_nonce": b"N" * 32}),
        (kem, b"a", {"expires_in": 61}),
    ):
        request = m.SessionRequest(HOST, pair.public, nonce * 32, m.SUITES).sign(HOST_KEY)
        session = TrustedSession(HOST, ROOT.public_key().public_bytes_raw(), request, pair)
        asks.add(session.accept_offer(sbs.offer(request, **changes), NOW).qualifying_data)
    assert len(asks) == 5


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("policy", PolicyError),
        ("quote", QuoteError),
        ("licence", LicenceError),
        ("no_such_code", QuoteError),
        ("", QuoteError),
    ],
)
def test_refusal(reason: str, error: type[CafeError]) -> None:
    session, request = begin()
    sbs = Sbs()
    session.accept_offer(sbs.offer(request), NOW)
    session.seal_evidence(b"attest", b"signature", VALUES)
    with pytest.raises(error):
        session.accept_result(sbs.result(status=m.STATUS_REFUSED, reason=reason))
    assert not session.accepted
    with pytest.raises(SessionError):
        session.accept_result(sbs.result())
    with pytest.raises(SessionError):
        session.launch(LaunchAsk(b"r" * 16, "vm-1", b"i" * 32))


def test_result_that_is_not_the_sbss() -> None:
    forged: list[Callable[[Sbs], bytes]] = [
        lambda sbs: m.AttestResult(SESSION, 1, "", 1, 60).seal(sbs.keys.client_mac),
        lambda _: m.AttestResult(SESSION, 1, "", 1, 60).seal(b"k" * 32),
        lambda sbs: sbs.result(session_id=b"S" * 16),
        lambda sbs: m.seal_mac(
            sbs.keys.server_mac, "renewal result", m.AttestResult(SESSION, 1, "", 1, 60).encode()
        ),
        lambda sbs: sbs.result()[:-1],
    ]
    for make in forged:
        session, request = begin()
        sbs = Sbs()
        session.accept_offer(sbs.offer(request), NOW)
        session.seal_evidence(b"attest", b"signature", VALUES)
        with pytest.raises(CafeError):
            session.accept_result(make(sbs))
        assert not session.accepted


def test_no_flipped_bit_of_a_result_passes() -> None:
    session, sbs = attested()
    data = sbs.result()
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        session._state = "attesting"
        with pytest.raises(CafeError):
            session.accept_result(bytes(changed))


def test_no_step_out_of_order() -> None:
    session, _ = begin()
    with pytest.raises(SessionError):
        session.accept_result(b"")
    with pytest.raises(SessionError):
        session.seal_evidence(b"attest", b"signature", VALUES)
    for call in (
        session.renewal_request,
        lambda: session.launch(LaunchAsk(b"r" * 16, "vm-1", b"i" * 32)),
        lambda: session.lease_end(LEASE),
        lambda: session.events_request(0),
        lambda: session.accept_challenge(b""),
        lambda: session.accept_renewal(b""),
        lambda: session.accept_revocation(b"", 0),
    ):
        with pytest.raises(SessionError):
            call()


@pytest.mark.case("C04")
def test_each_launch_has_its_own_record_and_stream_keys() -> None:
    session, sbs = attested()
    ask = LaunchAsk(b"r" * 16, "vm-1", b"i" * 32)
    first, second = session.launch(ask), session.launch(ask)
    opened = [records.decrypt_record(sbs.keys, launch.record) for launch in (first, second)]
    assert [number for number, _ in opened] == [0, 1]
    assert m.DeployRequest.parse(opened[0][1]) == m.DeployRequest(b"r" * 16, SESSION, "vm-1", b"i" * 32, ())
    digest = hashlib.sha256(first.record).digest()
    writer = records.RecordWriter(keys.StreamKeys.derive(sbs.secret, sbs.transcript, digest, b"n" * 32))
    answer = writer.begin() + writer.grant(b"genuine, but no grant")
    with pytest.raises(SignatureError):
        list(second.feed(answer))
    with pytest.raises(MalformedError):
        list(first.feed(answer))


# ------------------------------------------------------------------ renewal, leases, revocations


@pytest.mark.case("A19")
def test_renewal() -> None:
    session, sbs = attested()
    asked = m.RenewalRequest.open(sbs.keys.client_mac, session.renewal_request())
    challenge = m.RenewalChallenge(SESSION, b"f" * 32, asked.number).seal(sbs.keys.server_mac)
    ask = session.accept_challenge(challenge)
    assert ask.qualifying_data == keys.renewal_qualifying_data(sbs.transcript, b"f" * 32)
    session.seal_evidence(b"attest", b"signature", VALUES)
    result = m.RenewalResult(SESSION, ((LEASE, 60),), (), asked.number).seal(sbs.keys.server_mac)
    assert session.accept_renewal(result).leases == ((LEASE, 60),)
    session.renewal_request()
    for call, old in ((session.accept_challenge, challenge), (session.accept_renewal, result)):
        with pytest.raises(SessionError, match="another renewal"):
            call(old)


def test_renewal_of_another_session() -> None:
    session, sbs = attested()
    session.renewal_request()
    with pytest.raises(SessionError):
        session.accept_challenge(m.RenewalChallenge(b"S" * 16, b"f" * 32, 1).seal(sbs.keys.server_mac))
    with pytest.raises(SessionError):
        session.accept_renewal(m.RenewalResult(b"S" * 16, (), (), 1).seal(sbs.keys.server_mac))


def test_what_the_agent_says() -> None:
    session, sbs = attested()
    assert m.LeaseEnd.open(sbs.keys.client_mac, session.lease_end(LEASE)).lease_id == LEASE
    assert m.EventsRequest.open(sbs.keys.client_mac, session.events_request(5)).after == 5


def test_revocations() -> None:
    session, _ = attested()
    good = m.Revocation(6, HOST, "licence", (LEASE,), b"")
    assert session.accept_revocation(good.sign(SIGNER), 5) == good
    for data, after in (
        (good.sign(OTHER), 5),
        (good.sign(SIGNER), 6),
        (dataclasses.replace(good, host_id=b"H" * 16).sign(SIGNER), 5),
        (good.sign(SIGNER)[:-1], 5),
    ):
        with pytest.raises(CafeError):
            session.accept_revocation(data, after)
