"""The values of the domain as the JSON that people see."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

from sbs_server.api import schemas
from sbs_server.domain import values
from sbs_server.services.hosts import HostState
from sbs_server.services.identities import Created
from sbs_server.services.licences import LicenceState


def at(seconds: int) -> datetime:
    """Return a time from UNIX seconds."""
    return datetime.fromtimestamp(seconds, UTC)


def at_or_none(seconds: int | None) -> datetime | None:
    """Return a time that need not be."""
    return None if seconds is None else at(seconds)


def _hex(data: bytes | None) -> str | None:
    return data.hex() if data else None


def identity(value: values.Identity) -> schemas.Identity:
    """Show an identity; never its key."""
    return schemas.Identity(
        id=value.id.hex(),
        name=value.name,
        role=schemas.Role(value.role),
        public_key=_hex(value.public_key),
        publisher_id=hashlib.sha256(value.public_key).hexdigest() if value.public_key else None,
        created_at=at(value.created_at),
        revoked_at=at_or_none(value.revoked_at),
    )


def created(value: Created) -> schemas.IdentityCreated:
    """Show a new identity with its API key."""
    return schemas.IdentityCreated(**identity(value.identity).model_dump(), api_key=value.api_key)


def release(value: values.Release) -> schemas.Release:
    """Show a release."""
    mode = schemas.BuildMode.DEBUG if value.build_mode == values.DEBUG else schemas.BuildMode.PRODUCTION
    return schemas.Release(
        id=value.id.hex(),
        release=value.title,
        app=value.app,
        publisher=value.publisher,
        name=value.name,
        version=value.version,
        build_mode=mode,
        interface_digest=value.interface_digest.hex(),
        image_bytes=value.image_bytes,
        chunks=value.chunks,
        created_at=at(value.created_at),
        revoked_at=at_or_none(value.revoked_at),
    )


def vm(value: values.Vm) -> schemas.Vm:
    """Show a VM."""
    return schemas.Vm(
        vm_id=value.vm_id,
        host_id=value.host_id.hex(),
        tenant=value.tenant,
        operator=value.operator,
        created_at=at(value.created_at),
    )


def licence(value: LicenceState) -> schemas.Licence:
    """Show a licence."""
    found = value.licence
    return schemas.Licence(
        id=found.id.hex(),
        app=found.app,
        tenant=found.tenant,
        vm_id=found.vm_id,
        seats=found.seats,
        seats_used=value.seats_used,
        issued_by=found.issued_by,
        created_at=at(found.created_at),
        expires_at=at(found.expires_at),
        revoked_at=at_or_none(found.revoked_at),
    )


def approval(value: values.Approval) -> schemas.Approval:
    """Show an approval."""
    return schemas.Approval(
        ek_digest=value.ek_digest.hex(),
        name=value.name,
        operator=value.operator,
        created_at=at(value.created_at),
        host_id=_hex(value.host_id),
        revoked_at=at_or_none(value.revoked_at),
    )


def host(value: HostState) -> schemas.Host:
    """Show a host."""
    found = value.host
    revoked = found.revoked_at is not None
    return schemas.Host(
        id=found.id.hex(),
        name=found.name,
        ek_digest=found.ek_digest.hex(),
        operator=found.operator,
        state=schemas.HostState.REVOKED if revoked else schemas.HostState.ENROLLED,
        leases=value.leases,
        enrolled_at=at(found.enrolled_at),
        last_attested_at=at_or_none(found.attested_at),
        revoked_at=at_or_none(found.revoked_at),
    )


def policy(value: values.PolicyVersion) -> schemas.Policy:
    """Show a policy."""
    return schemas.Policy(
        version=value.version,
        policy=json.loads(value.document),
        set_by=value.set_by,
        set_at=at(value.created_at),
    )


def audit_record(value: values.AuditRecord) -> schemas.AuditRecord:
    """Show a decision."""
    return schemas.AuditRecord(
        number=value.number,
        at=at(value.created_at),
        actor=value.actor,
        action=value.action,
        outcome=schemas.Outcome.REFUSED if value.code else schemas.Outcome.ALLOWED,
        code=value.code,
        subject=value.subject,
        host_id=_hex(value.host_id),
        vm_id=value.vm_id,
        tenant=value.tenant,
        release_id=_hex(value.release_id),
        licence_id=_hex(value.licence_id),
        lease_id=_hex(value.lease_id),
    )
