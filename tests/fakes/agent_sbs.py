"""An SBS and a TPM in memory, for the agent's unit tests: real messages and keys, no checks, no network."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cafe_lib.errors import CafeError
from cafe_lib.image.confidential import Confidential, confidential_digest, encrypt_chunk
from cafe_lib.image.flat import ImageHeader
from cafe_lib.image.manifest import PRODUCTION, Manifest, publisher_id, sign_manifest
from cafe_lib.wire import keys, records
from cafe_lib.wire.limits import CHUNK_BYTES
from cafe_lib.wire.messages import (
    SUITE_HYBRID,
    AttestResult,
    DeployRequest,
    Evidence,
    Grant,
    LeaseEnd,
    RenewalChallenge,
    RenewalRequest,
    RenewalResult,
    Revocation,
    SessionOffer,
    SessionRequest,
    SigningCertificate,
    encode_frame,
)
from hypervisor_agent.abi import ABI_VERSION
from hypervisor_agent.session import Identity
from hypervisor_agent.state import Enrolment
from hypervisor_agent.tpm.port import AttestationKey, PcrValues, Quote, Selection

HOST_ID = b"H" * 16
LEASE_ID = b"L" * 16
SELECTION = ((0x0B, (14,)),)
INTERFACE = b"I" * 32
FAR_FUTURE = 2**40


@dataclass
class FakeTpm:
    """Quotes whatever its PCR holds."""

    pcr: bytes = bytes(32)
    quotes: int = 0

    def quote(self, _ak: AttestationKey, qualifying_data: bytes, selection: Selection) -> Quote:
        self.quotes += 1
        return Quote(b"attest" + qualifying_data, b"signature", self.read_pcrs(selection))

    def read_pcrs(self, selection: Selection) -> PcrValues:
        return tuple((alg, index, self.pcr) for alg, indices in selection for index in indices)


@dataclass(frozen=True)
class FakeRelease:
    """A release that loads: one page each of code, read-only data and data, and some more code."""

    cose: bytes
    manifest: Manifest
    publisher_key: bytes
    confidential: bytes
    ciphertext: tuple[bytes, ...]

    @property
    def secret_binary_id(self) -> bytes:
        return hashlib.sha256(self.manifest.encode()).digest()


def make_release(code_pages: int = 1) -> FakeRelease:
    code, page = code_pages * 4096, 4096
    header = ImageHeader(
        4096, code, 4096 + code, page, 4096 + code + page, page, 0,
        4096 + code, 0, 4096 + code, 1, 4096 + code + 4, 4096, 0, 0, 0, 1,
    )  # fmt: skip
    tables = (4096).to_bytes(4, "little") * 2
    plain = header.pack() + b"\xf4" * code + tables.ljust(page, b"\0") + b"D" * page
    secret, key = b"s" * 32, Ed25519PrivateKey.generate()
    parts = [encrypt_chunk(secret, plain[i : i + CHUNK_BYTES]) for i in range(0, len(plain), CHUNK_BYTES)]
    names, chunk_keys, tags, ciphertext = zip(*parts, strict=True)
    confidential = Confidential(b"x" * 32, chunk_keys, tags).encode()
    public = key.public_key().public_bytes_raw()
    manifest = Manifest(
        "app", "1", publisher_id(public), PRODUCTION, ABI_VERSION, 1, INTERFACE, 16384, 65536, 1, 4096, 1, 0,
        1000, len(plain), names, confidential_digest(confidential),
    )  # fmt: skip
    return FakeRelease(sign_manifest(key, manifest), manifest, public, confidential, ciphertext)


@dataclass
class FakeSbs:
    """Answers everything; `tamper` may change a stream, `refuse` may refuse by the call's name."""

    release: FakeRelease
    root: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    signing: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    valid_seconds: int = 300
    lease_seconds: int = 30
    verdict: str = ""
    tamper: Callable[[list[bytes]], list[bytes]] = lambda stream: stream
    refuse: dict[str, list[CafeError]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    requests: list[DeployRequest] = field(default_factory=list)
    ended: list[bytes] = field(default_factory=list)
    ended_at_renewal: tuple[bytes, ...] = ()
    pause: threading.Event | None = None
    sessions: int = 0
    event_pieces: list[list[bytes]] = field(default_factory=list)

    def identity(self) -> Identity:
        enrolment = Enrolment("", self.root.public_key().public_bytes_raw(), HOST_ID, "host", "")
        return Identity(enrolment, Ed25519PrivateKey.generate(), AttestationKey(b"", b""))

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if errors := self.refuse.get(name):
            raise errors.pop(0)

    def open_session(self, request: bytes) -> bytes:
        self._called("open_session")
        said = SessionRequest.read_unverified(request)
        self.sessions += 1
        self.session_id = self.sessions.to_bytes(16, "big")
        self.secret = b"S" * 32
        sealed = keys.seal_secret(
            said.kem_public, self.secret, keys.session_secret_info(request, self.session_id)
        )
        signing = self.signing.public_key().public_bytes_raw()
        certificate = SigningCertificate(signing, 0, FAR_FUTURE).sign(self.root)
        offer = SessionOffer(
            self.session_id, b"n" * 32, SELECTION, sealed, SUITE_HYBRID, 3600, certificate
        ).sign(self.signing)
        root = self.root.public_key().public_bytes_raw()
        self.transcript = keys.transcript_hash(request, offer, HOST_ID, root)
        self.keys = keys.SessionKeys.derive(self.secret, self.transcript)
        return offer

    def send_evidence(self, session_id: bytes, evidence: bytes) -> bytes:
        self._called("send_evidence")
        quoted = Evidence.open(self.keys.client_mac, evidence)
        assert quoted.attest.endswith(keys.qualifying_data(self.transcript))
        result = AttestResult(session_id, int(not self.verdict), self.verdict, 1, self.valid_seconds)
        return result.seal(self.keys.server_mac)

    @contextmanager
    def deploy(self, _session_id: bytes, record: bytes) -> Iterator[Iterator[bytes]]:
        self._called("deploy")
        _, body = records.decrypt_record(self.keys, record)
        self.requests.append(DeployRequest.parse(body))
        digest = hashlib.sha256(record).digest()
        writer = records.RecordWriter(keys.StreamKeys.derive(self.secret, self.transcript, digest, b"g" * 32))
        yield self._stream(self.tamper(self._records(writer, self.requests[-1])))

    def _records(self, writer: records.RecordWriter, asked: DeployRequest) -> list[bytes]:
        release = self.release
        grant = Grant(
            release.cose, release.confidential, asked.session_id, asked.request_id, HOST_ID, asked.vm_id,
            "tenant", release.secret_binary_id, PRODUCTION, LEASE_ID, self.lease_seconds,
            "publisher/app@1", release.publisher_key,
        )  # fmt: skip
        stream = [writer.begin(), writer.grant(grant.encode())]
        for chunk in release.ciphertext:
            header, tag = writer.chunk(chunk)
            stream.append(header + chunk + tag)
        return [*stream, writer.end()]

    def _stream(self, pieces: list[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            yield piece
            if self.pause is not None:
                self.pause.wait(5)
        if errors := self.refuse.get("stream"):
            raise errors.pop(0)

    def renewal_challenge(self, session_id: bytes, request: bytes) -> bytes:
        self._called("renewal_challenge")
        self.number = RenewalRequest.open(self.keys.client_mac, request).number
        return RenewalChallenge(session_id, b"r" * 32, self.number).seal(self.keys.server_mac)

    def renew(self, session_id: bytes, evidence: bytes) -> bytes:
        self._called("renew")
        quoted = Evidence.open(self.keys.client_mac, evidence)
        assert quoted.attest.endswith(keys.renewal_qualifying_data(self.transcript, b"r" * 32))
        renewed = () if LEASE_ID in self.ended_at_renewal else ((LEASE_ID, self.lease_seconds),)
        result = RenewalResult(session_id, renewed, self.ended_at_renewal, self.number)
        return result.seal(self.keys.server_mac)

    def end_lease(self, _session_id: bytes, message: bytes) -> None:
        self._called("end_lease")
        self.ended.append(LeaseEnd.open(self.keys.client_mac, message).lease_id)

    @contextmanager
    def events(self, _session_id: bytes, _request: bytes) -> Iterator[Iterator[bytes]]:
        self._called("events")
        yield iter(self.event_pieces.pop(0) if self.event_pieces else ())

    def revocation(self, number: int, host_id: bytes = HOST_ID) -> bytes:
        event = Revocation(number, host_id, "licence", (LEASE_ID,), b"")
        return encode_frame(event.sign(self.signing))
