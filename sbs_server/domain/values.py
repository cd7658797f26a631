"""What the SBS knows, as frozen values. Times are UNIX seconds; ids and digests are bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

PUBLISHER, MARKETPLACE, OPERATOR, ADMIN = "publisher", "marketplace", "operator", "admin"
ROLES: Final = (ADMIN, PUBLISHER, MARKETPLACE, OPERATOR)
PRODUCTION: Final = 1
DEBUG: Final = 2


class LeaseEndReason(StrEnum):
    """Why a lease is over."""

    EXPIRED = "expired"
    RETURNED = "returned"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who may call; of the API key only a hash is kept. `public_key` is a publisher's, else empty."""

    id: bytes
    name: str
    role: str
    key_hash: bytes = field(repr=False)
    public_key: bytes
    created_at: int
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """A secret binary, visible once complete. `id` is its SecretBinaryID, `publisher` an identity's name."""

    id: bytes
    owner_id: bytes
    publisher: str
    name: str
    version: str
    build_mode: int
    interface_digest: bytes
    image_bytes: int
    chunks: int
    publisher_key: bytes
    created_at: int
    revoked_at: int | None = None

    @property
    def app(self) -> str:
        """What licences name: all versions."""
        return f"{self.publisher}/{self.name}"

    @property
    def title(self) -> str:
        """publisher/name@version."""
        return f"{self.app}@{self.version}"


@dataclass(frozen=True, slots=True)
class Vm:
    """A VM on a host, for a tenant. A removed one keeps its name for its operator and tenant."""

    vm_id: str
    host_id: bytes
    tenant: str
    owner_id: bytes
    operator: str
    created_at: int
    removed_at: int | None = None


@dataclass(frozen=True, slots=True)
class Licence:
    """The right to run an app on `seats` enclaves at once; bound to a tenant or to a VM, never both."""

    id: bytes
    owner_id: bytes
    issued_by: str
    publisher: str
    app: str
    tenant: str | None
    vm_id: str | None
    seats: int
    created_at: int
    expires_at: int
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True)
class Approval:
    """A TPM, by the digest of its EK, that may enrol under a name."""

    ek_digest: bytes
    name: str
    owner_id: bytes
    operator: str
    created_at: int
    host_id: bytes | None = None
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True)
class Enrolment:
    """An activation under way. `proof` is the answer that only the right TPM can compute."""

    id: bytes
    ek_digest: bytes
    request: bytes
    proof: bytes = field(repr=False)
    result: bytes = field(repr=False)
    host_id: bytes
    created_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Host:
    """An enrolled host, and the clock of its TPM when it was last attested (`clock` in milliseconds)."""

    id: bytes
    name: str
    ek_digest: bytes
    ak_public: bytes
    host_key: bytes
    owner_id: bytes
    operator: str
    enrolled_at: int
    created_at: int
    last_event: int = 0
    attested_at: int | None = None
    clock: int = 0
    reset_count: int = 0
    restart_count: int = 0
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """A session with a host. The secret is stored sealed; `state` moves as `attestation.sessions` says."""

    id: bytes
    host_id: bytes
    request_digest: bytes
    nonce: bytes
    sealed_secret: bytes = field(repr=False)
    transcript: bytes
    selection: bytes
    state: str
    created_at: int
    expires_at: int
    attested_at: int | None = None
    policy_version: int = 0
    renewal_number: int = 0
    renewal_nonce: bytes | None = None
    renewal_until: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """A seat taken by one enclave of one VM, until it is given back (`ended_at`) or `frees_at` has come.

    A revoked lease has its `end_reason` at once, but keeps its seat: the enclave may run on for a moment.
    """

    id: bytes
    licence_id: bytes
    seats: int
    seat: int
    host_id: bytes
    vm_id: str
    tenant: str
    release_id: bytes
    request_id: bytes
    created_at: int
    expires_at: int
    frees_at: int
    ended_at: int | None = None
    end_reason: str | None = None


@dataclass(frozen=True, slots=True)
class RecordNumber:
    """A number that a DEPLOY record of a session has used, and SHA-256 of that record."""

    session_id: bytes
    number: bytes
    digest: bytes
    created_at: int


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """A policy document as it was put."""

    version: int
    document: bytes
    set_by: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Event:
    """A revocation for one host; `number` rises by one with each event of that host."""

    host_id: bytes
    number: int
    kind: str
    lease_ids: bytes
    secret_binary_id: bytes
    created_at: int


@dataclass(frozen=True, slots=True)
class Subject:
    """What a decision is about; what does not apply is None."""

    subject: str | None = None
    host_id: bytes | None = None
    vm_id: str | None = None
    tenant: str | None = None
    release_id: bytes | None = None
    licence_id: bytes | None = None
    lease_id: bytes | None = None


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One decision; `number` 0 means that the store has yet to number it. `code` is None when allowed."""

    number: int
    created_at: int
    actor: str
    action: str
    code: str | None
    subject: str | None
    host_id: bytes | None
    vm_id: str | None
    tenant: str | None
    release_id: bytes | None
    licence_id: bytes | None
    lease_id: bytes | None


@dataclass(frozen=True, slots=True)
class Terms:
    """What the operator of the SBS sets: times in seconds, and caps."""

    enrolment_seconds: int = 300
    offer_seconds: int = 120
    session_seconds: int = 3600
    retention_seconds: int = 24 * 3600
    quote_max_age_seconds: int = 3600
    lease_seconds: int = 300
    lease_margin_seconds: int = 10
    keep_alive_seconds: int = 15
    max_enrolments_per_key: int = 8
    max_offers_per_host: int = 16
    max_sessions_per_host: int = 32
    max_records_per_session: int = 10_000
    max_leases_per_host: int = 1024
    max_streams_per_host: int = 8
    max_uploads_per_publisher: int = 2
