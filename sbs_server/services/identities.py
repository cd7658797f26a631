"""Identities of people and programs, and their API keys."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field, replace
from typing import Final

from cafe_lib.errors import ConflictError, NotFoundError, UnauthenticatedError
from sbs_server.domain.ports import Clock, Random, Store
from sbs_server.domain.values import ADMIN, Identity
from sbs_server.services.audit import AuditTrail

_API_KEY: Final = re.compile(r"cafe_([0-9a-f]{32})_([0-9a-f]{64})")
_HASH_LABEL: Final = b"cafe api key v1"
_NO_HASH: Final = bytes(32)
_SECRET_BYTES: Final = 32
_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class NewIdentity:
    """What is asked for. `public_key` (Ed25519, 32 bytes) is a publisher's, else empty."""

    name: str
    role: str
    public_key: bytes = b""


@dataclass(frozen=True, slots=True)
class Created:
    """An identity and its API key, which nobody can tell again."""

    identity: Identity
    api_key: str = field(repr=False)


class Identities:
    """Creates, ends and recognises identities."""

    def __init__(self, store: Store, audit: AuditTrail, clock: Clock, random: Random) -> None:
        self._store = store
        self._audit = audit
        self._clock = clock
        self._random = random

    async def create(self, actor: str, new: NewIdentity) -> Created:
        """Create one; raises ConflictError when its name or public key was ever used."""
        secret = self._random.take(_SECRET_BYTES)
        identity_id = self._random.take(_ID_BYTES)
        identity = Identity(
            identity_id, new.name, new.role, _hash(identity_id, secret), new.public_key, self._clock.now()
        )
        async with self._audit.decision("identity.create", actor) as decision:
            decision.about(subject=new.name)
            async with self._store.write() as tx:
                await tx.identities.add(identity)
                await self._audit.allow(tx, decision)
        return Created(identity, f"cafe_{identity_id.hex()}_{secret.hex()}")

    async def page(self, after: str | None, limit: int) -> tuple[list[Identity], str | None]:
        """Return identities, ended ones too."""
        async with self._store.read() as tx:
            return await tx.identities.page(after, limit)

    async def delete(self, actor: str, identity_id: bytes) -> None:
        """End an identity; its name stays taken. Raises NotFoundError, ConflictError (the last admin)."""
        async with (
            self._audit.decision("identity.delete", actor) as decision,
            self._store.write() as tx,
        ):
            identity = await tx.identities.lock(identity_id)
            if identity is None or identity.revoked_at is not None:
                raise NotFoundError("no such identity")
            decision.about(subject=identity.name)
            if identity.role == ADMIN and await tx.identities.count(role=ADMIN, revoked_at=None) == 1:
                raise ConflictError("the last administrator cannot be deleted")
            await tx.identities.put(replace(identity, revoked_at=self._clock.now()))
            await self._audit.allow(tx, decision)

    async def authenticate(self, api_key: str) -> Identity:
        """Return the identity of an API key; raises UnauthenticatedError."""
        parts = _API_KEY.fullmatch(api_key)
        if parts is None:
            raise UnauthenticatedError("not an API key")
        identity_id, secret = bytes.fromhex(parts[1]), bytes.fromhex(parts[2])
        async with self._store.read() as tx:
            identity = await tx.identities.get(identity_id)
        expected = identity.key_hash if identity else _NO_HASH
        genuine = hmac.compare_digest(_hash(identity_id, secret), expected)
        if identity is None or not genuine or identity.revoked_at is not None:
            raise UnauthenticatedError("an unknown or ended API key")
        return identity


def _hash(identity_id: bytes, secret: bytes) -> bytes:
    """Hash an API key for the store; it is random and long, so a slow hash would add nothing."""
    return hashlib.sha256(_HASH_LABEL + identity_id + secret).digest()
