"""Hosts: which TPMs may enrol, which have, and the end of one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cafe_lib.errors import ConflictError, NotFoundError
from sbs_server.attestation import sessions
from sbs_server.domain.ports import Clock, Store, Transaction
from sbs_server.domain.values import ADMIN, Approval, Host, Identity
from sbs_server.services.audit import AuditTrail
from sbs_server.services.revocation import HOST, Cause, Revoker


@dataclass(frozen=True, slots=True)
class HostState:
    """A host and how many leases it holds now."""

    host: Host
    leases: int


class Hosts:
    """Approves TPMs, shows and revokes hosts. Each operator sees its own."""

    def __init__(self, store: Store, audit: AuditTrail, revoker: Revoker, clock: Clock) -> None:
        self._store = store
        self._audit = audit
        self._revoker = revoker
        self._clock = clock

    async def approve(self, caller: Identity, ek_digest: bytes, name: str) -> Approval:
        """Let the TPM with this EK enrol under this name; after a revocation, as a new host.

        :raises ConflictError: the TPM is approved already, or the name is taken.
        """
        approval = Approval(ek_digest, name, caller.id, caller.name, self._clock.now())
        async with self._audit.decision("host.approve", caller.name) as decision:
            decision.about(subject=name)
            async with self._store.write() as tx:
                known = await tx.approvals.lock(ek_digest)
                if known is None:
                    await tx.approvals.add(approval)
                elif known.revoked_at is None or known.owner_id != caller.id:
                    raise ConflictError("this TPM is approved already")
                else:
                    await tx.approvals.put(approval)
                await self._audit.allow(tx, decision)
        return approval

    async def approvals(
        self, caller: Identity, after: str | None, limit: int
    ) -> tuple[list[Approval], str | None]:
        """Return the approvals the caller may see."""
        async with self._store.read() as tx:
            return await tx.approvals.page(after, limit, **_visible(caller))

    async def page(
        self, caller: Identity, after: str | None, limit: int
    ) -> tuple[list[HostState], str | None]:
        """Return the hosts the caller may see."""
        async with self._store.read() as tx:
            found, following = await tx.hosts.page(after, limit, **_visible(caller))
            return [await self._state(tx, host) for host in found], following

    async def revoke(self, caller: Identity, host_id: bytes) -> HostState:
        """End a host's enrolment, its sessions and leases; again is no error. Raises NotFoundError."""
        async with self._audit.decision("host.revoke", caller.name) as decision:
            decision.about(host_id=host_id)
            async with self._store.write() as tx:
                host = await tx.hosts.lock(host_id)
                if host is None or (caller.role != ADMIN and host.owner_id != caller.id):
                    raise NotFoundError("no such host of this operator")
                if host.revoked_at is None:
                    await self._end(tx, host)
                host = await tx.hosts.get(host_id) or host
                await self._audit.allow(tx, decision)
                state = await self._state(tx, host)
        self._revoker.ring((host_id,))
        return state

    async def _end(self, tx: Transaction, host: Host) -> None:
        now = self._clock.now()
        await tx.hosts.put(replace(host, revoked_at=now))
        approval = await tx.approvals.lock(host.ek_digest)
        if approval is not None and approval.host_id == host.id:
            await tx.approvals.put(replace(approval, revoked_at=now))
        for session in await tx.sessions.find(host_id=host.id, state=sessions.OFFERED):
            await tx.sessions.put(replace(session, state=sessions.move(session.state, sessions.ENDED)))
        leases = await tx.leases.find(host_id=host.id, ended_at=None)
        if not await self._revoker.end(tx, leases, Cause(HOST)):
            await self._revoker.tell(tx, host.id, [], Cause(HOST))

    async def _state(self, tx: Transaction, host: Host) -> HostState:
        return HostState(host, await tx.leases.running(host.id, self._clock.now()))


def _visible(caller: Identity) -> dict[str, bytes]:
    return {} if caller.role == ADMIN else {"owner_id": caller.id}
