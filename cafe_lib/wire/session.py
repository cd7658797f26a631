"""Sessions: keys agreed, evidence asked for and given, the verdict (deployment steps 3 to 8), and renewal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from cafe_lib.errors import SessionError, VersionError
from cafe_lib.wire import limits
from cafe_lib.wire.envelope import MacBody, SignedBody
from cafe_lib.wire.schema import Blob, Bytes32, Id, Items, Row, Text, Uint, Uint32, Uint64

SUITE_HYBRID: Final = 1
"""HPKE MLKEM768-X25519 / HKDF-SHA-256 / AES-256-GCM; records AES-256-CTR and HMAC-SHA-256."""
SUITES: Final = (SUITE_HYBRID,)

STATUS_REFUSED: Final = 0
STATUS_ACCEPTED: Final = 1

PcrSelection = tuple[tuple[int, tuple[int, ...]], ...]
PcrValues = tuple[tuple[int, int, bytes], ...]

_ALGORITHM = Uint(1, 2**16 - 1)
_INDEX = Uint(0, limits.MAX_PCR_INDEX)
_BANK = Row((_ALGORITHM, Items(_INDEX, limits.MAX_PCR_INDEX + 1)))
_VALUE = Row((_ALGORITHM, _INDEX, Blob(limits.MIN_PCR_DIGEST_BYTES, limits.MAX_PCR_DIGEST_BYTES)))
Seconds = Annotated[int, Uint(0, limits.MAX_LEASE_SECONDS)]


@dataclass(frozen=True, slots=True)
class SessionRequest(SignedBody):
    """Host to SBS, signed by the host key. `kem_public`: ML-KEM-768 (1184 bytes), then X25519 (32)."""

    KIND: ClassVar[int] = 32
    LABEL: ClassVar[str] = "session request"

    host_id: Id
    kem_public: Annotated[bytes, Blob(limits.KEM_PUBLIC_BYTES, limits.KEM_PUBLIC_BYTES)]
    agent_nonce: Bytes32
    suites: Annotated[tuple[int, ...], Items(Uint(1, 2**16 - 1), limits.MAX_SUITES)]


@dataclass(frozen=True, slots=True)
class SigningCertificate(SignedBody):
    """By the SBS root key: this Ed25519 key signs for the SBS between the two UNIX times, in seconds."""

    KIND: ClassVar[int] = 33
    LABEL: ClassVar[str] = "signing certificate"

    public_key: Bytes32
    not_before: Uint64
    not_after: Uint64


@dataclass(frozen=True, slots=True)
class SessionOffer(SignedBody):
    """SBS to host, signed by the certified key. `pcr_selection`: (TPM_ALG_ID, PCR indices) per bank."""

    KIND: ClassVar[int] = 34
    LABEL: ClassVar[str] = "session offer"

    session_id: Id
    sbs_nonce: Bytes32
    pcr_selection: Annotated[PcrSelection, Items(_BANK, limits.MAX_PCR_BANKS)]
    sealed_secret: Annotated[bytes, Blob(limits.SEALED_SECRET_BYTES, limits.SEALED_SECRET_BYTES)]
    suite: Uint32
    expires_in: Annotated[int, Uint(1, limits.MAX_SESSION_SECONDS)]
    certificate: Annotated[bytes, Blob(1, 1024)]


@dataclass(frozen=True, slots=True)
class Evidence(MacBody):
    """Host to SBS, under the client key: TPMS_ATTEST, TPMT_SIGNATURE, (alg, index, digest), event log."""

    KIND: ClassVar[int] = 35
    LABEL: ClassVar[str] = "evidence"
    LIMIT: ClassVar[int] = limits.MAX_EVIDENCE_BYTES

    session_id: Id
    attest: Annotated[bytes, Blob(1, limits.MAX_TPM_ATTEST_BYTES)]
    signature: Annotated[bytes, Blob(1, limits.MAX_TPM_SIGNATURE_BYTES)]
    pcr_values: Annotated[PcrValues, Items(_VALUE, limits.MAX_PCR_VALUES)]
    event_log: Annotated[bytes, Blob(0, limits.MAX_EVENT_LOG_BYTES)]


@dataclass(frozen=True, slots=True)
class AttestResult(MacBody):
    """SBS to host, under the server key. `reason` is a CafeError's code, or empty."""

    KIND: ClassVar[int] = 36
    LABEL: ClassVar[str] = "attest result"

    session_id: Id
    status: Annotated[int, Uint(0, 1)]
    reason: Annotated[str, Text(0, limits.MAX_REASON_BYTES, r"[a-z_]*")]
    policy_version: Uint32
    valid_seconds: Seconds


@dataclass(frozen=True, slots=True)
class RenewalRequest(MacBody):
    """Host to SBS, under the client key: asks for a nonce. `number` counts a session's renewals from 1."""

    KIND: ClassVar[int] = 37
    LABEL: ClassVar[str] = "renewal request"

    session_id: Id
    number: Uint32


@dataclass(frozen=True, slots=True)
class RenewalChallenge(MacBody):
    """SBS to host, under the server key: the nonce to quote, for the request of that number."""

    KIND: ClassVar[int] = 38
    LABEL: ClassVar[str] = "renewal challenge"

    session_id: Id
    nonce: Bytes32
    number: Uint32


@dataclass(frozen=True, slots=True)
class RenewalResult(MacBody):
    """SBS to host, under the server key: (lease id, seconds) of the leases renewed, and those that ended."""

    KIND: ClassVar[int] = 39
    LABEL: ClassVar[str] = "renewal result"

    session_id: Id
    leases: Annotated[
        tuple[tuple[bytes, int], ...],
        Items(Row((Blob(16, 16), Uint(1, limits.MAX_LEASE_SECONDS))), limits.MAX_LEASES),
    ]
    ended: Annotated[tuple[bytes, ...], Items(Blob(16, 16), limits.MAX_LEASES)]
    number: Uint32


def verify_certificate(sbs_root: bytes, data: bytes, now: int) -> SigningCertificate:
    """Verify a certificate under the root at UNIX time `now`; raises SignatureError or SessionError."""
    certificate = SigningCertificate.verify(sbs_root, data)
    if not certificate.not_before <= now <= certificate.not_after:
        raise SessionError("the signing certificate of the SBS is not valid now")
    return certificate


def verify_offer(sbs_root: bytes, data: bytes, now: int) -> tuple[SessionOffer, SigningCertificate]:
    """Verify an offer and its certificate; raises SignatureError, SessionError or VersionError (suite)."""
    certificate = verify_certificate(sbs_root, SessionOffer.read_unverified(data).certificate, now)
    offer = SessionOffer.verify(certificate.public_key, data)
    if offer.suite not in SUITES:
        raise VersionError(f"suite {offer.suite} is not known")
    return offer, certificate


def choose_suite(offered: tuple[int, ...]) -> int:
    """Choose the suite for a request that offers these; raises VersionError when none is known."""
    for suite in SUITES:
        if suite in offered:
            return suite
    raise VersionError("none of the offered suites is known")
