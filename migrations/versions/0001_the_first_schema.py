"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column(
            "number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("action", sa.String(length=200), nullable=False),
        sa.Column("code", sa.String(length=200), nullable=True),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("host_id", sa.LargeBinary(), nullable=True),
        sa.Column("vm_id", sa.String(length=200), nullable=True),
        sa.Column("tenant", sa.String(length=200), nullable=True),
        sa.Column("release_id", sa.LargeBinary(), nullable=True),
        sa.Column("licence_id", sa.LargeBinary(), nullable=True),
        sa.Column("lease_id", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit")),
    )
    with op.batch_alter_table("audit", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_audit_host_id"), ["host_id"], unique=False)


def _create_identities() -> None:
    op.create_table(
        "identities",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=200), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identities")),
        sa.UniqueConstraint("name", name=op.f("uq_identities_name")),
    )
    with op.batch_alter_table("identities", schema=None) as batch_op:
        batch_op.create_index(
            "uq_identities_public_key",
            ["public_key"],
            unique=True,
            sqlite_where=sa.text("role = 'publisher'"),
            postgresql_where=sa.text("role = 'publisher'"),
        )


def _create_policies() -> None:
    op.create_table(
        "policies",
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("set_by", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_policies")),
    )


def _create_approvals() -> None:
    op.create_table(
        "approvals",
        sa.Column("ek_digest", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("owner_id", sa.LargeBinary(), nullable=False),
        sa.Column("operator", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("host_id", sa.LargeBinary(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["owner_id"], ["identities.id"], name=op.f("fk_approvals_owner_id")),
        sa.PrimaryKeyConstraint("ek_digest", name=op.f("pk_approvals")),
    )
    with op.batch_alter_table("approvals", schema=None) as batch_op:
        batch_op.create_index(
            "uq_approvals_name",
            ["name"],
            unique=True,
            sqlite_where=sa.text("revoked_at IS NULL"),
            postgresql_where=sa.text("revoked_at IS NULL"),
        )


def _create_licences() -> None:
    op.create_table(
        "licences",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("owner_id", sa.LargeBinary(), nullable=False),
        sa.Column("issued_by", sa.String(length=200), nullable=False),
        sa.Column("publisher", sa.String(length=200), nullable=False),
        sa.Column("app", sa.String(length=200), nullable=False),
        sa.Column("tenant", sa.String(length=200), nullable=True),
        sa.Column("vm_id", sa.String(length=64), nullable=True),
        sa.Column("seats", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("(tenant IS NULL) <> (vm_id IS NULL)", name=op.f("ck_licences_one_holder")),
        sa.CheckConstraint("seats >= 1", name=op.f("ck_licences_seats")),
        sa.ForeignKeyConstraint(["owner_id"], ["identities.id"], name=op.f("fk_licences_owner_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_licences")),
        sa.UniqueConstraint("id", "seats", name=op.f("uq_licences_id_seats")),
    )
    with op.batch_alter_table("licences", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_licences_app"), ["app"], unique=False)
        batch_op.create_index(batch_op.f("ix_licences_owner_id"), ["owner_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_licences_publisher"), ["publisher"], unique=False)


def _create_releases() -> None:
    op.create_table(
        "releases",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("owner_id", sa.LargeBinary(), nullable=False),
        sa.Column("publisher", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("version", sa.String(length=200), nullable=False),
        sa.Column("build_mode", sa.Integer(), nullable=False),
        sa.Column("interface_digest", sa.LargeBinary(), nullable=False),
        sa.Column("image_bytes", sa.BigInteger(), nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("publisher_key", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["owner_id"], ["identities.id"], name=op.f("fk_releases_owner_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_releases")),
        sa.UniqueConstraint("publisher", "name", "version", name=op.f("uq_releases_publisher_name_version")),
    )
    with op.batch_alter_table("releases", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_releases_owner_id"), ["owner_id"], unique=False)


def _create_enrolments() -> None:
    op.create_table(
        "enrolments",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("ek_digest", sa.LargeBinary(), nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("proof", sa.LargeBinary(), nullable=False),
        sa.Column("result", sa.LargeBinary(), nullable=False),
        sa.Column("host_id", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["ek_digest"], ["approvals.ek_digest"], name=op.f("fk_enrolments_ek_digest")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrolments")),
    )
    with op.batch_alter_table("enrolments", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_enrolments_ek_digest"), ["ek_digest"], unique=False)
        batch_op.create_index(batch_op.f("ix_enrolments_expires_at"), ["expires_at"], unique=False)


def _create_hosts() -> None:
    op.create_table(
        "hosts",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("ek_digest", sa.LargeBinary(), nullable=False),
        sa.Column("ak_public", sa.LargeBinary(), nullable=False),
        sa.Column("host_key", sa.LargeBinary(), nullable=False),
        sa.Column("owner_id", sa.LargeBinary(), nullable=False),
        sa.Column("operator", sa.String(length=200), nullable=False),
        sa.Column("enrolled_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_event", sa.BigInteger(), nullable=False),
        sa.Column("attested_at", sa.BigInteger(), nullable=True),
        sa.Column("clock", sa.BigInteger(), nullable=False),
        sa.Column("reset_count", sa.BigInteger(), nullable=False),
        sa.Column("restart_count", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["ek_digest"], ["approvals.ek_digest"], name=op.f("fk_hosts_ek_digest")),
        sa.ForeignKeyConstraint(["owner_id"], ["identities.id"], name=op.f("fk_hosts_owner_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hosts")),
    )
    with op.batch_alter_table("hosts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_hosts_ek_digest"), ["ek_digest"], unique=False)
        batch_op.create_index(batch_op.f("ix_hosts_owner_id"), ["owner_id"], unique=False)


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("host_id", sa.LargeBinary(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=200), nullable=False),
        sa.Column("lease_ids", sa.LargeBinary(), nullable=False),
        sa.Column("secret_binary_id", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_events_host_id")),
        sa.PrimaryKeyConstraint("host_id", "number", name=op.f("pk_events")),
    )


def _create_leases() -> None:
    op.create_table(
        "leases",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("licence_id", sa.LargeBinary(), nullable=False),
        sa.Column("seats", sa.Integer(), nullable=False),
        sa.Column("seat", sa.Integer(), nullable=False),
        sa.Column("host_id", sa.LargeBinary(), nullable=False),
        sa.Column("vm_id", sa.String(length=200), nullable=False),
        sa.Column("tenant", sa.String(length=200), nullable=False),
        sa.Column("release_id", sa.LargeBinary(), nullable=False),
        sa.Column("request_id", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("frees_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("end_reason", sa.String(length=200), nullable=True),
        sa.CheckConstraint("seat >= 1 AND seat <= seats", name=op.f("ck_leases_seat")),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_leases_host_id")),
        sa.ForeignKeyConstraint(
            ["licence_id", "seats"],
            ["licences.id", "licences.seats"],
            name=op.f("fk_leases_licence_id_seats"),
        ),
        sa.ForeignKeyConstraint(["release_id"], ["releases.id"], name=op.f("fk_leases_release_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_leases")),
        sa.UniqueConstraint("host_id", "request_id", name=op.f("uq_leases_host_id_request_id")),
    )
    with op.batch_alter_table("leases", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_leases_frees_at"), ["frees_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_leases_host_id_ended_at"), ["host_id", "ended_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_leases_release_id"), ["release_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_leases_vm_id_ended_at"), ["vm_id", "ended_at"], unique=False)
        batch_op.create_index(
            "uq_leases_seat",
            ["licence_id", "seat"],
            unique=True,
            sqlite_where=sa.text("ended_at IS NULL"),
            postgresql_where=sa.text("ended_at IS NULL"),
        )


def _create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("host_id", sa.LargeBinary(), nullable=False),
        sa.Column("request_digest", sa.LargeBinary(), nullable=False),
        sa.Column("nonce", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.Column("transcript", sa.LargeBinary(), nullable=False),
        sa.Column("selection", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("attested_at", sa.BigInteger(), nullable=True),
        sa.Column("policy_version", sa.BigInteger(), nullable=False),
        sa.Column("renewal_number", sa.BigInteger(), nullable=False),
        sa.Column("renewal_nonce", sa.LargeBinary(), nullable=True),
        sa.Column("renewal_until", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_sessions_host_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("host_id", "request_digest", name=op.f("uq_sessions_host_id_request_digest")),
        sa.UniqueConstraint("nonce", name=op.f("uq_sessions_nonce")),
        sa.UniqueConstraint("renewal_nonce", name=op.f("uq_sessions_renewal_nonce")),
    )
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_sessions_expires_at"), ["expires_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_sessions_host_id_state"), ["host_id", "state"], unique=False)


def _create_vms() -> None:
    op.create_table(
        "vms",
        sa.Column("vm_id", sa.String(length=64), nullable=False),
        sa.Column("host_id", sa.LargeBinary(), nullable=False),
        sa.Column("tenant", sa.String(length=200), nullable=False),
        sa.Column("owner_id", sa.LargeBinary(), nullable=False),
        sa.Column("operator", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("removed_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_vms_host_id")),
        sa.ForeignKeyConstraint(["owner_id"], ["identities.id"], name=op.f("fk_vms_owner_id")),
        sa.PrimaryKeyConstraint("vm_id", name=op.f("pk_vms")),
    )
    with op.batch_alter_table("vms", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_vms_host_id"), ["host_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_vms_owner_id"), ["owner_id"], unique=False)


def _create_record_numbers() -> None:
    op.create_table(
        "record_numbers",
        sa.Column("session_id", sa.LargeBinary(), nullable=False),
        sa.Column("number", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f("fk_record_numbers_session_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("session_id", "number", name=op.f("pk_record_numbers")),
    )


def upgrade() -> None:
    _create_audit()
    _create_identities()
    _create_policies()
    _create_approvals()
    _create_licences()
    _create_releases()
    _create_enrolments()
    _create_hosts()
    _create_events()
    _create_leases()
    _create_sessions()
    _create_vms()
    _create_record_numbers()


def downgrade() -> None:
    for table in (
        "record_numbers",
        "vms",
        "sessions",
        "leases",
        "events",
        "hosts",
        "enrolments",
        "releases",
        "licences",
        "approvals",
        "policies",
        "identities",
        "audit",
    ):
        op.drop_table(table)
