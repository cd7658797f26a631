"""Licences: the right of a tenant, or of one VM, to run an app on so many enclaves at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from cafe_lib.errors import ConflictError, NotFoundError
from sbs_server.domain.ports import Clock, Random, Store, Transaction
from sbs_server.domain.values import ADMIN, PUBLISHER, Identity, Licence
from sbs_server.services.audit import AuditTrail
from sbs_server.services.revocation import LICENCE, Cause, Revoker

_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class NewLicence:
    """What is asked for: exactly one of `tenant` and `vm_id`; `expires_at` in UNIX seconds."""

    app: str
    tenant: str | None
    vm_id: str | None
    seats: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class LicenceState:
    """A licence and how many of its seats are taken now."""

    licence: Licence
    seats_used: int


class Licences:
    """Issues, shows and revokes. Each caller sees its own: publishers those of their apps."""

    def __init__(
        self, store: Store, audit: AuditTrail, revoker: Revoker, clock: Clock, random: Random
    ) -> None:
        self._store = store
        self._audit = audit
        self._revoker = revoker
        self._clock = clock
        self._random = random

    async def issue(self, caller: Identity, new: NewLicence) -> LicenceState:
        """Issue one; raises ConflictError (already over), NotFoundError (no such publisher or VM)."""
        now = self._clock.now()
        licence = Licence(
            self._random.take(_ID_BYTES),
            caller.id,
            caller.name,
            new.app.partition("/")[0],
            new.app,
            new.tenant,
            new.vm_id,
            new.seats,
            now,
            new.expires_at,
        )
        async with self._audit.decision("licence.issue", caller.name) as decision:
            decision.about(subject=new.app, tenant=new.tenant, vm_id=new.vm_id, licence_id=licence.id)
            if new.expires_at <= now:
                raise ConflictError("the licence would be over already")
            async with self._store.write() as tx:
                await _verify_names(tx, licence)
                await tx.licences.add(licence)
                await self._audit.allow(tx, decision)
        return LicenceState(licence, 0)

    async def page(
        self, caller: Identity, after: str | None, limit: int
    ) -> tuple[list[LicenceState], str | None]:
        """Return the licences the caller may see."""
        async with self._store.read() as tx:
            found, following = await tx.licences.page(after, limit, **_visible(caller))
            return [await self._state(tx, licence) for licence in found], following

    async def show(self, caller: Identity, licence_id: bytes) -> LicenceState:
        """Return one; raises NotFoundError, also for those of others."""
        async with self._store.read() as tx:
            return await self._state(tx, _seen(caller, await tx.licences.get(licence_id)))

    async def revoke(self, caller: Identity, licence_id: bytes) -> LicenceState:
        """End a licence and its leases; again is no error. Raises NotFoundError."""
        async with self._audit.decision("licence.revoke", caller.name) as decision:
            decision.about(licence_id=licence_id)
            async with self._store.write() as tx:
                licence = _seen(caller, await tx.licences.lock(licence_id))
                licence = replace(licence, revoked_at=licence.revoked_at or self._clock.now())
                await tx.licences.put(licence)
                leases = await tx.leases.find(licence_id=licence_id, ended_at=None)
                hosts = await self._revoker.end(tx, leases, Cause(LICENCE))
                await self._audit.allow(tx, decision)
                state = await self._state(tx, licence)
        self._revoker.ring(hosts)
        return state

    async def _state(self, tx: Transaction, licence: Licence) -> LicenceState:
        return LicenceState(licence, len(await tx.leases.taken_seats(licence.id, self._clock.now())))


def _visible(caller: Identity) -> dict[str, bytes | str]:
    if caller.role == ADMIN:
        return {}
    return {"publisher": caller.name} if caller.role == PUBLISHER else {"owner_id": caller.id}


def _seen(caller: Identity, licence: Licence | None) -> Licence:
    if licence is None:
        raise NotFoundError("no such licence")
    if any(getattr(licence, name) != value for name, value in _visible(caller).items()):
        raise NotFoundError("a licence of somebody else")
    return licence


async def _verify_names(tx: Transaction, licence: Licence) -> None:
    """Refuse a misspelt publisher or VM: such a licence would be of no use, and nobody would notice."""
    if not await tx.identities.count(name=licence.publisher, role=PUBLISHER, revoked_at=None):
        raise NotFoundError("no such publisher")
    if licence.vm_id is not None:
        vm = await tx.vms.get(licence.vm_id)
        if vm is None or vm.removed_at is not None:
            raise NotFoundError("no such VM")
