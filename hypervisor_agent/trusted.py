"""What the agent believes of an SBS, and when: one attested session and its launches, as pure state machines.

No I/O, no clock, no randomness. Every byte from the SBS passes through here before anything else sees it, in
the order of the protocol (docs/reference/protocol.md); a step out of order, or an error, ends what it is in.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cafe_lib.client.problems import ERRORS_BY_CODE
from cafe_lib.errors import (
    DigestError,
    LimitError,
    MalformedError,
    PolicyError,
    QuoteError,
    SessionError,
)
from cafe_lib.image.confidential import Confidential, confidential_digest, parse_confidential
from cafe_lib.image.manifest import VerifiedManifest, verify_manifest
from cafe_lib.wire import keys, limits, records
from cafe_lib.wire.messages import (
    STATUS_ACCEPTED,
    AttestResult,
    DeployRequest,
    EventsRequest,
    Evidence,
    Grant,
    LeaseEnd,
    RenewalChallenge,
    RenewalRequest,
    RenewalResult,
    Revocation,
    SessionRequest,
    verify_offer,
)

BUILD_PRODUCTION: Final = 1
BUILD_DEBUG: Final = 2

PcrSelection = tuple[tuple[int, tuple[int, ...]], ...]
PcrValues = tuple[tuple[int, int, bytes], ...]


@dataclass(frozen=True, slots=True)
class QuoteAsk:
    """What the TPM is to sign: these 32 bytes, over these PCRs."""

    qualifying_data: bytes
    selection: PcrSelection


@dataclass(frozen=True, slots=True)
class LaunchAsk:
    """What is asked of the SBS for one launch, and what this host allows. `request_id` is fresh, 16 bytes."""

    request_id: bytes
    vm_id: str
    secret_binary_id: bytes
    held: tuple[bytes, ...] = ()
    build_modes: frozenset[int] = frozenset({BUILD_PRODUCTION})


class TrustedSession:
    """One session: offer, evidence, verdict; then launches and renewals. Not thread-safe but for `launch`."""

    def __init__(self, host_id: bytes, sbs_root: bytes, request: bytes, kem: keys.KemKeyPair) -> None:
        """Begin with the signed SessionRequest as sent; `host_id` and `sbs_root` are what enrolment pinned.

        Raises SessionError for a request that is not of this host and key.
        """
        said = SessionRequest.read_unverified(request)
        if said.host_id != host_id or said.kem_public != kem.public:
            raise SessionError("the session request is not of this host and key")
        self.host_id = host_id
        self._sbs_root = sbs_root
        self._request = request
        self._suites = said.suites
        self._kem: keys.KemKeyPair | None = kem
        self._state = "new"
        self._numbers = itertools.count()
        self._renewals = 0

    @property
    def accepted(self) -> bool:
        """True once the SBS has accepted the evidence."""
        return self._state == "accepted"

    # -------------------------------------------------------------- set-up

    def accept_offer(self, data: bytes, now: int) -> QuoteAsk:
        """Verify the SBS's identity and offer at UNIX time `now`, and derive the session's keys (steps 3, 4).

        Raises SignatureError, SessionError, VersionError or another ProtocolError.
        """
        self._leave("new")
        offer, certificate = verify_offer(self._sbs_root, data, now)
        if offer.suite not in self._suites:
            raise SessionError("the SBS chose a suite that was not offered")
        if not offer.pcr_selection or not all(indices for _, indices in offer.pcr_selection):
            raise SessionError("the SBS asks for no PCR")
        kem, self._kem = self._kem, None
        if kem is None:
            raise SessionError("the session's key has been used")
        info = keys.session_secret_info(self._request, offer.session_id)
        self._secret = keys.open_secret(kem, offer.sealed_secret, info)
        self._transcript = keys.transcript_hash(self._request, data, self.host_id, self._sbs_root)
        self.keys = keys.SessionKeys.derive(self._secret, self._transcript)
        self.session_id = offer.session_id
        self.signing_key = certificate.public_key
        self.expires_in = offer.expires_in
        self.selection = offer.pcr_selection
        self._state = "offered"
        return QuoteAsk(keys.qualifying_data(self._transcript), offer.pcr_selection)

    def seal_evidence(
        self, attest: bytes, signature: bytes, pcr_values: PcrValues, event_log: bytes = b""
    ) -> bytes:
        """Return the Evidence message for what the TPM gave (step 6); also for a renewal."""
        if self._state == "offered":
            self._state = "attesting"
        elif self._state != "accepted":
            raise SessionError("evidence was not asked for")
        return Evidence(self.session_id, attest, signature, pcr_values, event_log).seal(self.keys.client_mac)

    def accept_result(self, data: bytes) -> AttestResult:
        """Take the verdict (step 8); a refusal is raised as the CafeError of its code."""
        self._leave("attesting")
        result = AttestResult.open(self.keys.server_mac, data)
        self._mine(result.session_id)
        if result.status != STATUS_ACCEPTED:
            raise ERRORS_BY_CODE.get(result.reason, QuoteError)("the SBS refused the evidence")
        self._state = "accepted"
        return result

    # -------------------------------------------------------------- launches

    def launch(self, ask: LaunchAsk) -> TrustedLaunch:
        """Return a launch (step 9): send its `record`, feed it the answer. May be called from any thread."""
        self._need_accepted()
        request = DeployRequest(ask.request_id, self.session_id, ask.vm_id, ask.secret_binary_id, ask.held)
        record = records.encrypt_record(self.keys, next(self._numbers), request.encode())
        context = keys.StreamContext(self._secret, self._transcript, hashlib.sha256(record).digest())
        return TrustedLaunch(self.host_id, self.session_id, ask, record, context)

    # -------------------------------------------------------------- renewal, leases, events

    def renewal_request(self) -> bytes:
        """Return a RenewalRequest with the next number."""
        self._need_accepted()
        self._renewals += 1
        return RenewalRequest(self.session_id, self._renewals).seal(self.keys.client_mac)

    def accept_challenge(self, data: bytes) -> QuoteAsk:
        """Verify the answer to the latest RenewalRequest; raises SignatureError or SessionError."""
        self._need_accepted()
        challenge = RenewalChallenge.open(self.keys.server_mac, data)
        self._mine(challenge.session_id, challenge.number)
        ask = keys.renewal_qualifying_data(self._transcript, challenge.nonce)
        return QuoteAsk(ask, self.selection)

    def accept_renewal(self, data: bytes) -> RenewalResult:
        """Verify the result of the latest renewal; raises SignatureError or SessionError."""
        self._need_accepted()
        result = RenewalResult.open(self.keys.server_mac, data)
        self._mine(result.session_id, result.number)
        return result

    def lease_end(self, lease_id: bytes) -> bytes:
        """Return the message that gives a seat back."""
        self._need_accepted()
        return LeaseEnd(self.session_id, lease_id).seal(self.keys.client_mac)

    def events_request(self, after: int) -> bytes:
        """Return the message that asks for the events numbered above `after`."""
        self._need_accepted()
        return EventsRequest(self.session_id, after).seal(self.keys.client_mac)

    def accept_revocation(self, data: bytes, after: int) -> Revocation:
        """Verify one event; raises SignatureError, or SessionError (another host's, or not above `after`)."""
        self._need_accepted()
        revocation = Revocation.verify(self.signing_key, data)
        if revocation.host_id != self.host_id or revocation.number <= after:
            raise SessionError("a revocation of another host, or an old one")
        return revocation

    def _leave(self, state: str) -> None:
        """Leave a state for good: whatever fails before the next one is reached ends the session."""
        if self._state != state:
            raise SessionError("a step of the session out of order")
        self._state = "failed"

    def _need_accepted(self) -> None:
        if self._state != "accepted":
            raise SessionError("the session is not attested")

    def _mine(self, session_id: bytes, number: int | None = None) -> None:
        if not hmac.compare_digest(session_id, self.session_id):
            raise SessionError("a message of another session")
        if number is not None and number != self._renewals:
            raise SessionError("an answer to another renewal")


@dataclass(frozen=True, slots=True)
class VerifiedGrant:
    """A grant whose every field is what was asked for. The release is complete only after `finish()`."""

    manifest: VerifiedManifest
    confidential: Confidential
    tenant: str
    release: str
    build_mode: int
    lease_id: bytes
    lease_seconds: int


@dataclass(frozen=True, slots=True)
class VerifiedChunk:
    """A chunk as the SBS sent it, still encrypted; `ciphertext` is valid until the next one is asked for."""

    index: int
    ciphertext: memoryview


class TrustedLaunch:
    """One record stream: the grant, then exactly the chunks its manifest lists, then the end."""

    def __init__(
        self, host_id: bytes, session_id: bytes, ask: LaunchAsk, record: bytes, context: keys.StreamContext
    ) -> None:
        self.record = record
        self._host_id = host_id
        self._session_id = session_id
        self._ask = ask
        self._reader = records.RecordReader(context)
        self._grant: VerifiedGrant | None = None
        self._chunks = 0
        self._failed = False

    def feed(self, data: bytes | memoryview) -> Iterator[VerifiedGrant | VerifiedChunk]:
        """Yield what `data` completes: first the grant, then chunks. Exhaust it before feeding again.

        Nothing of it may run before `finish()`. Raises a ProtocolError, VerificationError or PolicyError, and
        is then of no more use.
        """
        if self._failed:
            raise SessionError("the launch has failed before")
        self._failed = True
        for record in self._reader.feed(data):
            step = self._take(record)
            if step is not None:
                yield step
        self._failed = False

    def finish(self) -> VerifiedGrant:
        """Give the verdict: all chunks and the END record have been verified; else raises MalformedError."""
        if self._failed:
            raise SessionError("the launch has failed before")
        self._reader.finish()
        if self._grant is None:
            raise MalformedError("the stream holds no grant")
        return self._grant

    def _take(self, record: records.Record) -> VerifiedGrant | VerifiedChunk | None:
        if record.type == records.GRANT:
            self._grant = verify_grant(bytes(record.body), self._host_id, self._session_id, self._ask)
            return self._grant
        if self._grant is None:
            raise MalformedError("a record before the grant")
        manifest = self._grant.manifest.manifest
        if record.type == records.END:
            if self._chunks != len(manifest.chunk_names):
                raise MalformedError("the stream lacks chunks of the release")
            return None
        if self._chunks >= len(manifest.chunk_names):
            raise MalformedError("the stream has more chunks than the release")
        if len(record.body) != manifest.chunk_bytes(self._chunks):
            raise MalformedError("a chunk of another length than the release's")
        self._chunks += 1
        return VerifiedChunk(self._chunks - 1, memoryview(record.body))


def verify_grant(data: bytes, host_id: bytes, session_id: bytes, ask: LaunchAsk) -> VerifiedGrant:
    """Check every field of a Grant against what was asked. The steps are those of the protocol document."""
    grant = Grant.parse(data)
    # 1. it answers this request, in this session, for this host and VM
    asked = (session_id, ask.request_id, host_id, ask.vm_id.encode(), ask.secret_binary_id)
    given = (grant.session_id, grant.request_id, grant.host_id, grant.vm_id.encode(), grant.secret_binary_id)
    if not hmac.compare_digest(b"".join(given), b"".join(asked)) or given != asked:
        raise SessionError("a grant for another request, session, host, VM or release")
    # 2. the manifest is signed by the publisher it names, and is the one that was asked for
    manifest = verify_manifest(grant.manifest, grant.publisher_key)
    said = manifest.manifest
    if not hmac.compare_digest(hashlib.sha256(grant.publisher_key).digest(), said.publisher):
        raise DigestError("the manifest is another publisher's")
    if not hmac.compare_digest(manifest.secret_binary_id, ask.secret_binary_id):
        raise DigestError("the manifest is another release's")
    # 3. the release name and build mode are the manifest's, and this host runs that mode
    if not grant.release.endswith(f"/{said.name}@{said.version}"):
        raise SessionError("the release's name is not the manifest's")
    if grant.build_mode != said.build_mode or grant.build_mode not in ask.build_modes:
        raise PolicyError("the release's build mode is not allowed on this host")
    # 4. the lease is a duration within bounds
    if not 0 < grant.lease_seconds <= limits.MAX_LEASE_SECONDS:
        raise LimitError("a lease out of bounds")
    # 5. the chunk keys are those the publisher signed, one for each chunk
    if not hmac.compare_digest(confidential_digest(grant.confidential), said.confidential_digest):
        raise DigestError("the chunk keys are not the release's")
    confidential = parse_confidential(grant.confidential)
    if not len(confidential.keys) == len(confidential.tags) == len(said.chunk_names):
        raise MalformedError("as many keys and tags as chunks are needed")
    return VerifiedGrant(
        manifest,
        confidential,
        grant.tenant,
        grant.release,
        grant.build_mode,
        grant.lease_id,
        grant.lease_seconds,
    )
