"""The agent itself: who runs under which lease, and what ends them."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Protocol

import structlog

from cafe_lib.errors import CafeError
from cafe_lib.wire.messages import Revocation
from hypervisor_agent.abi import Status
from hypervisor_agent.guests.messages import LaunchRequest
from hypervisor_agent.leases import Clock, LeaseBook, RestartBudget, boottime
from hypervisor_agent.release import Deployment, Order
from hypervisor_agent.steps import Steps
from hypervisor_agent.tenancy import EnclaveTenancy, Starter, in_thread

LONGEST_SLEEP_SECONDS = 1.0
"""The loop's clock stands still while the host sleeps; leases do not."""
RENEWAL_PAUSE_SECONDS = 2.0
MAX_REMEMBERED_REVOCATIONS = 4096

_log = structlog.get_logger()


class Deployer(Protocol):
    """The SBS's side of a launch. Every method blocks."""

    def deploy(self, order: Order, cancelled: threading.Event) -> Deployment:
        """Attest if need be, take in a release, load it. Raises any CafeError."""

    def renew(self) -> tuple[float, tuple[tuple[bytes, int], ...], tuple[bytes, ...]]:
        """Renew every lease: when it was asked, (lease id, seconds), and the leases that ended."""

    def end_lease(self, lease_id: bytes) -> None:
        """Give a seat back; a failure is logged, the SBS frees the seat when the lease runs out."""


class AgentHost:
    """Fills the guests' port. Lives on the event loop."""

    def __init__(
        self,
        deployer: Deployer,
        starter: Starter,
        new_budget: Callable[[], RestartBudget],
        steps: Steps,
        clock: Clock = boottime,
    ) -> None:
        self._deployer = deployer
        self._starter = starter
        self._new_budget = new_budget
        self._steps = steps
        self._clock = clock
        self._leases = LeaseBook()
        self._tenancies: dict[bytes, EnclaveTenancy] = {}
        self._revoked: deque[bytes] = deque(maxlen=MAX_REMEMBERED_REVOCATIONS)
        self._changed = asyncio.Event()
        self._deploying = 0
        self._renewal: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def launch(self, vm_id: str, request: LaunchRequest) -> EnclaveTenancy:
        """See the guests' port."""
        self._steps.step("deployment", 1, 0)
        self._steps.step("deployment", 2, 0)
        order = Order(vm_id, request.secret_binary_id, request.interface_digest)
        return await self._run(await self._deploy(order))

    async def replace(self, tenancy: EnclaveTenancy) -> None:
        """See the guests' port."""
        await tenancy.replace(self._clock)

    async def end(self, tenancy: EnclaveTenancy) -> None:
        """See the guests' port. Once begun it is carried through, even if the caller is cancelled."""
        await asyncio.shield(self._background(self._end(tenancy)))

    async def _end(self, tenancy: EnclaveTenancy) -> None:
        lease_id = tenancy.release.lease.lease_id
        self._tenancies.pop(lease_id, None)
        await tenancy.stop(Status.EXITED)
        if self._leases.drop(lease_id):
            await asyncio.to_thread(self._deployer.end_lease, lease_id)

    async def _deploy(self, order: Order) -> Deployment:
        cancelled = threading.Event()

        def give_back(unused: Deployment) -> None:
            unused.discard()
            self._deployer.end_lease(unused.release.lease.lease_id)

        self._deploying += 1
        try:
            return await in_thread(lambda: self._deployer.deploy(order, cancelled), give_back, cancelled.set)
        finally:
            self._deploying -= 1

    async def _run(self, deployment: Deployment) -> EnclaveTenancy:
        release = deployment.release
        tenancy = EnclaveTenancy(release, self._starter, self._new_budget(), self._steps)
        self._leases.add(release.lease)
        self._tenancies[release.lease.lease_id] = tenancy
        self._changed.set()
        try:
            if release.lease.lease_id in self._revoked or release.lease.expires_at <= self._clock():
                await self._stop((release.lease.lease_id,), Status.REVOKED)
            await tenancy.start(deployment.plan)
        except BaseException:
            await asyncio.shield(self.end(tenancy))
            raise
        return tenancy

    # -------------------------------------------------------------- what ends enclaves

    def revoke(self, revocation: Revocation) -> None:
        """Destroy what the SBS has revoked; called on the event loop, returns at once."""
        leases = set(revocation.lease_ids)
        self._revoked.extend(leases)
        for lease_id, tenancy in self._tenancies.items():
            if revocation.secret_binary_id and tenancy.secret_binary_id == revocation.secret_binary_id:
                leases.add(lease_id)
        if revocation.kind == "host":
            leases.update(self._tenancies)
        _log.warning("revoked", kind=revocation.kind, number=revocation.number, leases=len(leases))
        self._steps.event("revocation", reason=revocation.kind, number=revocation.number)
        self._background(self._stop(tuple(leases), Status.REVOKED))

    async def keep_leases(self) -> None:
        """Renew and expire leases until cancelled."""
        while True:
            now = self._clock()
            if expired := self._leases.expired(now):
                self._background(self._stop(expired, Status.REVOKED))
            if self._leases.renewal_due(now) and self._renewal is None:
                self._renewal = self._background(self._renew())
            wake_at = self._leases.wake_at()
            if wake_at is None:
                await self._changed.wait()
            else:
                pause = min(max(wake_at - self._clock(), 0.01), LONGEST_SLEEP_SECONDS)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), pause)
            self._changed.clear()

    async def close(self) -> None:
        """End every enclave and give every lease back."""
        await asyncio.gather(*(self.end(tenancy) for tenancy in tuple(self._tenancies.values())))
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def _renew(self) -> None:
        self._leases.postpone(self._clock() + RENEWAL_PAUSE_SECONDS)
        try:
            sent_at, granted, ended = await asyncio.to_thread(self._deployer.renew)
        except CafeError as error:
            _log.warning("leases not renewed", code=error.code, detail=error.detail)
        else:
            self._leases.renew(granted, sent_at)
            self._steps.event("renewal", leases=len(granted), ended=len(ended))
            await self._stop(ended, Status.REVOKED)
            await self._give_back_strays(lease_id for lease_id, _ in granted)
        finally:
            self._renewal = None
            self._changed.set()

    async def _give_back_strays(self, lease_ids: Iterable[bytes]) -> None:
        """Give back leases that a killed agent of this host left: nothing runs under them.

        While a deployment is under way, a lease that is not in the book may be its own.
        """
        strays = [] if self._deploying else [lease for lease in lease_ids if lease not in self._leases]
        for lease_id in strays:
            await asyncio.to_thread(self._deployer.end_lease, lease_id)

    async def _stop(self, lease_ids: tuple[bytes, ...], status: Status) -> None:
        """Destroy enclaves whose leases have ended; the guests keep their connections.

        The SBS is told once they are gone: until then it must count the seats as taken.
        """
        stopping = []
        for lease_id in lease_ids:
            self._leases.drop(lease_id)
            tenancy = self._tenancies.pop(lease_id, None)
            if tenancy is not None:
                stopping.append(self._stop_one(tenancy, status))
        await asyncio.gather(*stopping)

    async def _stop_one(self, tenancy: EnclaveTenancy, status: Status) -> None:
        await tenancy.stop(status)
        await asyncio.to_thread(self._deployer.end_lease, tenancy.release.lease.lease_id)

    def _background(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
