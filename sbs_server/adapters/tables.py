"""The tables, and what the database itself enforces: no seat twice, no nonce twice, no name twice."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
# SQLite numbers rows only in a column of exactly this type.
_NUMBER: Final = BigInteger().with_variant(Integer(), "sqlite")


def _id(name: str = "id", *, primary: bool = True) -> Column[bytes]:
    return Column(name, LargeBinary, primary_key=primary, nullable=False)


def _time(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


def _name(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, String(200), nullable=nullable)


def _bytes(name: str, *, nullable: bool = False) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=nullable)


identities: Final = Table(
    "identities",
    metadata,
    _id(),
    Column("name", String(200), nullable=False, unique=True),
    _name("role"),
    _bytes("key_hash"),
    _bytes("public_key"),
    _time("created_at"),
    _time("revoked_at", nullable=True),
)
# One key, one publisher: else another identity could push under its manifests.
Index(
    "uq_identities_public_key",
    identities.c.public_key,
    unique=True,
    sqlite_where=identities.c.role == "publisher",
    postgresql_where=identities.c.role == "publisher",
)

releases: Final = Table(
    "releases",
    metadata,
    _id(),
    Column("owner_id", LargeBinary, ForeignKey("identities.id"), nullable=False, index=True),
    _name("publisher"),
    _name("name"),
    _name("version"),
    Column("build_mode", Integer, nullable=False),
    _bytes("interface_digest"),
    Column("image_bytes", BigInteger, nullable=False),
    Column("chunks", Integer, nullable=False),
    _bytes("publisher_key"),
    _time("created_at"),
    _time("revoked_at", nullable=True),
    UniqueConstraint("publisher", "name", "version"),
)

approvals: Final = Table(
    "approvals",
    metadata,
    _id("ek_digest"),
    _name("name"),
    Column("owner_id", LargeBinary, ForeignKey("identities.id"), nullable=False),
    _name("operator"),
    _time("created_at"),
    _bytes("host_id", nullable=True),
    _time("revoked_at", nullable=True),
)
Index(
    "uq_approvals_name",
    approvals.c.name,
    unique=True,
    sqlite_where=approvals.c.revoked_at.is_(None),
    postgresql_where=approvals.c.revoked_at.is_(None),
)

enrolments: Final = Table(
    "enrolments",
    metadata,
    _id(),
    Column("ek_digest", LargeBinary, ForeignKey("approvals.ek_digest"), nullable=False, index=True),
    _bytes("request"),
    _bytes("proof"),
    _bytes("result"),
    _bytes("host_id"),
    _time("created_at"),
    Column("expires_at", BigInteger, nullable=False, index=True),
)

hosts: Final = Table(
    "hosts",
    metadata,
    _id(),
    _name("name"),
    Column("ek_digest", LargeBinary, ForeignKey("approvals.ek_digest"), nullable=False, index=True),
    _bytes("ak_public"),
    _bytes("host_key"),
    Column("owner_id", LargeBinary, ForeignKey("identities.id"), nullable=False, index=True),
    _name("operator"),
    _time("enrolled_at"),
    _time("created_at"),
    Column("last_event", BigInteger, nullable=False),
    _time("attested_at", nullable=True),
    Column("clock", BigInteger, nullable=False),
    Column("reset_count", BigInteger, nullable=False),
    Column("restart_count", BigInteger, nullable=False),
    _time("revoked_at", nullable=True),
)

vms: Final = Table(
    "vms",
    metadata,
    Column("vm_id", String(64), primary_key=True),
    Column("host_id", LargeBinary, ForeignKey("hosts.id"), nullable=False, index=True),
    _name("tenant"),
    Column("owner_id", LargeBinary, ForeignKey("identities.id"), nullable=False, index=True),
    _name("operator"),
    _time("created_at"),
    _time("removed_at", nullable=True),
)

licences: Final = Table(
    "licences",
    metadata,
    _id(),
    Column("owner_id", LargeBinary, ForeignKey("identities.id"), nullable=False, index=True),
    _name("issued_by"),
    Column("publisher", String(200), nullable=False, index=True),
    Column("app", String(200), nullable=False, index=True),
    _name("tenant", nullable=True),
    Column("vm_id", String(64), nullable=True),
    Column("seats", Integer, nullable=False),
    _time("created_at"),
    _time("expires_at"),
    _time("revoked_at", nullable=True),
    CheckConstraint("seats >= 1", name="seats"),
    CheckConstraint("(tenant IS NULL) <> (vm_id IS NULL)", name="one_holder"),
    # what leases refer to, so that a lease's copy of `seats` is the licence's
    UniqueConstraint("id", "seats"),
)

sessions: Final = Table(
    "sessions",
    metadata,
    _id(),
    Column("host_id", LargeBinary, ForeignKey("hosts.id"), nullable=False),
    _bytes("request_digest"),
    Column("nonce", LargeBinary, nullable=False, unique=True),
    _bytes("sealed_secret"),
    _bytes("transcript"),
    _bytes("selection"),
    _name("state"),
    _time("created_at"),
    Column("expires_at", BigInteger, nullable=False, index=True),
    _time("attested_at", nullable=True),
    Column("policy_version", BigInteger, nullable=False),
    Column("renewal_number", BigInteger, nullable=False),
    Column("renewal_nonce", LargeBinary, nullable=True, unique=True),
    Column("renewal_until", BigInteger, nullable=False),
    UniqueConstraint("host_id", "request_digest"),
    Index(None, "host_id", "state"),
)

record_numbers: Final = Table(
    "record_numbers",
    metadata,
    Column("session_id", LargeBinary, ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    _id("number"),
    _bytes("digest"),
    _time("created_at"),
)

leases: Final = Table(
    "leases",
    metadata,
    _id(),
    _bytes("licence_id"),
    Column("seats", Integer, nullable=False),
    Column("seat", Integer, nullable=False),
    Column("host_id", LargeBinary, ForeignKey("hosts.id"), nullable=False),
    _name("vm_id"),
    _name("tenant"),
    Column("release_id", LargeBinary, ForeignKey("releases.id"), nullable=False, index=True),
    _bytes("request_id"),
    _time("created_at"),
    _time("expires_at"),
    Column("frees_at", BigInteger, nullable=False, index=True),
    _time("ended_at", nullable=True),
    _name("end_reason", nullable=True),
    ForeignKeyConstraint(["licence_id", "seats"], ["licences.id", "licences.seats"]),
    CheckConstraint("seat >= 1 AND seat <= seats", name="seat"),
    UniqueConstraint("host_id", "request_id"),
    Index(None, "host_id", "ended_at"),
    Index(None, "vm_id", "ended_at"),
)
# Two leases that have not ended never share a seat: overselling is an error of the database, not a race.
Index(
    "uq_leases_seat",
    leases.c.licence_id,
    leases.c.seat,
    unique=True,
    sqlite_where=leases.c.ended_at.is_(None),
    postgresql_where=leases.c.ended_at.is_(None),
)

events: Final = Table(
    "events",
    metadata,
    Column("host_id", LargeBinary, ForeignKey("hosts.id"), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    _name("kind"),
    _bytes("lease_ids"),
    _bytes("secret_binary_id"),
    _time("created_at"),
)

policies: Final = Table(
    "policies",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    _bytes("document"),
    _name("set_by"),
    _time("created_at"),
)

audit: Final = Table(
    "audit",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    _time("created_at"),
    _name("actor"),
    _name("action"),
    _name("code", nullable=True),
    Column("subject", Text, nullable=True),
    Column("host_id", LargeBinary, nullable=True, index=True),
    _name("vm_id", nullable=True),
    _name("tenant", nullable=True),
    Column("release_id", LargeBinary, nullable=True),
    Column("licence_id", LargeBinary, nullable=True),
    Column("lease_id", LargeBinary, nullable=True),
)
