"""The JSON bodies of the endpoints for people. Ids and digests are lower-case hex, times RFC 3339 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final, Generic, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

MAX_SEATS: Final = 10_000
MAX_PAGE_ITEMS: Final = 500
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)

Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
PublicKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
App = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}/[a-z0-9][a-z0-9_-]{0,62}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]{0,63}$")]


class Role(StrEnum):
    """What an identity may do."""

    ADMIN = "admin"
    PUBLISHER = "publisher"
    MARKETPLACE = "marketplace"
    OPERATOR = "operator"


class BuildMode(StrEnum):
    """A debug release is granted only where the policy says `allow_debug`."""

    PRODUCTION = "production"
    DEBUG = "debug"


class HostState(StrEnum):
    """Whether a host may open sessions."""

    ENROLLED = "enrolled"
    REVOKED = "revoked"


class Outcome(StrEnum):
    """What was decided."""

    ALLOWED = "allowed"
    REFUSED = "refused"


class Body(BaseModel):
    """Base of request bodies: unknown members are refused."""

    model_config = ConfigDict(extra="forbid")


Item = TypeVar("Item", bound=BaseModel)


class Page(BaseModel, Generic[Item]):
    """Part of a list. Ask again with `?after=<next>` until `next` is null."""

    model_config = ConfigDict(
        json_schema_extra={"description": "Part of a list; ask again with `?after=<next>` until it is null."}
    )

    items: list[Item]
    next: str | None = None


# ------------------------------------------------------------------ identities


class IdentityCreate(Body):
    """A new identity. A publisher needs the Ed25519 key that signs its manifests; others have none."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "acme", "role": "publisher", "public_key": "ab" * 32}]}
    )

    name: Slug
    role: Role
    public_key: PublicKey | None = None

    @model_validator(mode="after")
    def _key_of_publishers(self) -> IdentityCreate:
        if (self.public_key is not None) != (self.role is Role.PUBLISHER):
            raise ValueError("a publisher, and nobody else, has a public key")
        return self


class Identity(BaseModel):
    """Who may call. `publisher_id` is SHA-256 of the public key, as in manifests."""

    id: Id
    name: Slug
    role: Role
    public_key: PublicKey | None = None
    publisher_id: Digest | None = None
    created_at: datetime
    revoked_at: datetime | None = None


class IdentityCreated(Identity):
    """The only answer that ever holds the API key."""

    api_key: str


# ------------------------------------------------------------------ releases


class Release(BaseModel):
    """A secret binary that was uploaded; `id` is its SecretBinaryID."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"release": "acme/totp@1.0"}]})

    id: Digest
    release: str
    app: App
    publisher: Slug
    name: Slug
    version: str
    build_mode: BuildMode
    interface_digest: Digest
    image_bytes: int
    chunks: int
    created_at: datetime
    revoked_at: datetime | None = None


# ------------------------------------------------------------------ VMs


class VmCreate(Body):
    """Which host a VM runs on, and whose it is. The same operator may register it again after removal."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"vm_id": "web-1", "host_id": "00" * 16, "tenant": "globex"}]}
    )

    vm_id: Name
    host_id: Id
    tenant: Name


class Vm(BaseModel):
    """A registered VM."""

    vm_id: Name
    host_id: Id
    tenant: Name
    operator: Slug
    created_at: datetime


# ------------------------------------------------------------------ licences


class LicenceCreate(Body):
    """The right of a tenant, or of one VM, to run an app (all its versions) on `seats` enclaves at once."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"app": "acme/totp", "tenant": "globex", "seats": 3, "expires_at": "2030-01-01T00:00:00Z"}
            ]
        }
    )

    app: App
    tenant: Name | None = None
    vm_id: Name | None = None
    seats: Annotated[int, Field(ge=1, le=MAX_SEATS, strict=True)]
    expires_at: Annotated[AwareDatetime, Field(le=LATEST)]

    @model_validator(mode="after")
    def _one_holder(self) -> LicenceCreate:
        if (self.tenant is None) == (self.vm_id is None):
            raise ValueError("either tenant or vm_id is needed, not both")
        return self


class Licence(BaseModel):
    """A licence; `seats_used` counts the leases of this moment."""

    id: Id
    app: App
    tenant: Name | None = None
    vm_id: Name | None = None
    seats: int
    seats_used: int
    issued_by: Slug
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None


# ------------------------------------------------------------------ hosts


class ApprovalCreate(Body):
    """`ek_digest` is SHA-256 of the EK's TPMT_PUBLIC, as `cafe-agent` shows it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"ek_digest": "cd" * 32, "name": "host-1"}]})

    ek_digest: Digest
    name: Name


class Approval(BaseModel):
    """A TPM that may enrol under this name; `host_id` once it has."""

    ek_digest: Digest
    name: Name
    operator: Slug
    created_at: datetime
    host_id: Id | None = None
    revoked_at: datetime | None = None


class Host(BaseModel):
    """An enrolled host; `leases` counts the enclaves it may run at this moment."""

    id: Id
    name: Name
    ek_digest: Digest
    operator: Slug
    state: HostState
    leases: int
    enrolled_at: datetime
    last_attested_at: datetime | None = None
    revoked_at: datetime | None = None


# ------------------------------------------------------------------ policy, audit, keys


class Policy(BaseModel):
    """The policy in force; `policy` is the document as it was put. Each version is greater than the last."""

    version: int
    policy: dict[str, object]
    set_by: Slug
    set_at: datetime


class AuditRecord(BaseModel):
    """One decision. `code` is the refusal's code; fields that do not apply are null."""

    number: int
    at: datetime
    actor: str
    action: str
    outcome: Outcome
    code: str | None = None
    subject: str | None = None
    host_id: str | None = None
    vm_id: str | None = None
    tenant: str | None = None
    release_id: str | None = None
    licence_id: str | None = None
    lease_id: str | None = None


class Keys(BaseModel):
    """The public keys to pin. `release_key` (1216 bytes) is what `cafe push` seals packages to."""

    sbs_root: PublicKey
    release_key: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{2432}$")]
    release_key_id: Digest


class Health(BaseModel):
    """Sent only while the database answers."""

    status: str = "ok"


class Problem(BaseModel):
    """RFC 9457, as application/problem+json. `code` never changes meaning; `fields` names bad members."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:cafe:problem:not_found",
                    "title": "There is no such object.",
                    "status": 404,
                    "code": "not_found",
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    code: str
    fields: list[str] | None = None
