"""VMs, as their provider registers them: on which host, and whose. An agent's VM id is only a claim."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cafe_lib.errors import ConflictError, NotFoundError
from sbs_server.domain.ports import Clock, Store
from sbs_server.domain.values import ADMIN, Identity, Vm
from sbs_server.services.audit import AuditTrail
from sbs_server.services.revocation import LEASE, Cause, Revoker


@dataclass(frozen=True, slots=True)
class NewVm:
    """What is registered."""

    vm_id: str
    host_id: bytes
    tenant: str


class Vms:
    """Registers, shows and removes. Each operator sees its own."""

    def __init__(self, store: Store, audit: AuditTrail, revoker: Revoker, clock: Clock) -> None:
        self._store = store
        self._audit = audit
        self._revoker = revoker
        self._clock = clock

    async def register(self, caller: Identity, new: NewVm) -> Vm:
        """Register one.

        :raises NotFoundError: no such host of this operator, or it is revoked.
        :raises ConflictError: the name is taken, or was another operator's or tenant's: licences name VMs.
        """
        vm = Vm(new.vm_id, new.host_id, new.tenant, caller.id, caller.name, self._clock.now())
        async with self._audit.decision("vm.register", caller.name) as decision:
            decision.about(vm_id=new.vm_id, host_id=new.host_id, tenant=new.tenant)
            async with self._store.write() as tx:
                host = await tx.hosts.lock(new.host_id)
                if host is None or host.owner_id != caller.id or host.revoked_at is not None:
                    raise NotFoundError("no such host of this operator")
                known = await tx.vms.lock(new.vm_id)
                if known is None:
                    await tx.vms.add(vm)
                elif known.removed_at is None or (known.owner_id, known.tenant) != (caller.id, new.tenant):
                    raise ConflictError("the VM's name is taken")
                else:
                    await tx.vms.put(vm)
                await self._audit.allow(tx, decision)
        return vm

    async def page(self, caller: Identity, after: str | None, limit: int) -> tuple[list[Vm], str | None]:
        """Return the VMs the caller may see."""
        own: dict[str, bytes] = {} if caller.role == ADMIN else {"owner_id": caller.id}
        async with self._store.read() as tx:
            return await tx.vms.page(after, limit, removed_at=None, **own)

    async def remove(self, caller: Identity, vm_id: str) -> None:
        """Forget a VM and end its leases; raises NotFoundError, also for those of others."""
        async with self._audit.decision("vm.remove", caller.name) as decision:
            decision.about(vm_id=vm_id)
            async with self._store.write() as tx:
                vm = await tx.vms.lock(vm_id)
                if vm is None or vm.removed_at is not None or caller.id != vm.owner_id:
                    raise NotFoundError("no such VM of this operator")
                await tx.vms.put(replace(vm, removed_at=self._clock.now()))
                leases = await tx.leases.find(vm_id=vm_id, ended_at=None)
                hosts = await self._revoker.end(tx, leases, Cause(LEASE))
                await self._audit.allow(tx, decision)
        self._revoker.ring(hosts)
