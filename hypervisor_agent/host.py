"""The agent itself: who runs under which lease, and what ends them."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import structlog

from cafe_lib.errors import CafeError, ExitedError
from cafe_lib.wire.messages import Revocation
from hypervisor_agent.abi import Status
from hypervisor_agent.blocking import in_thread
from hypervisor_agent.guests.messages import LaunchRequest
from hypervisor_agent.leases import Clock, LeaseBook, boottime
from hypervisor_agent.release import Deployment, Order
from hypervisor_agent.starter import Starter
from hypervisor_agent.steps import Steps
from hypervisor_agent.tenancy import EnclaveTenancy, Member, Upkeep

LONGEST_SLEEP_SECONDS = 1.0
"""The loop's clock stands still while the host sleeps; leases do not."""
RENEWAL_PAUSE_SECONDS = 2.0
MAX_REMEMBERED_REVOCATIONS = 4096

_log = structlog.get_logger()
_T = TypeVar("_T")


class Deployer(Protocol):
    """The SBS's side of a launch. Every method blocks."""

    def deploy(self, order: Order, cancelled: threading.Event) -> Deployment:
        """Attest if need be, take in a release, load it. Raises any CafeError."""

    def renew(self) -> tuple[float, tuple[tuple[bytes, int], ...], tuple[bytes, ...]]:
        """Renew every lease: when it was asked, (lease id, seconds), and the leases that ended."""

    def end_lease(self, lease_id: bytes) -> None:
        """Give a seat back; a failure is logged, the SBS frees the seat when the lease runs out."""


@dataclass(eq=False, slots=True)
class _Share:
    """What the processes of one VM share that ask for one release: its deployment, then its tenancy."""

    order: Order
    opening: asyncio.Task[EnclaveTenancy]
    users: int = 0
    """Those who wait, and those who have been admitted."""

    @property
    def tenancy(self) -> EnclaveTenancy | None:
        """What the deployment came to; None before, or when it failed."""
        task = self.opening
        return task.result() if task.done() and not task.cancelled() and task.exception() is None else None

    async def opened(self) -> EnclaveTenancy:
        """Wait for the deployment; for others it goes on when the caller is cancelled. Raises CafeError."""
        await asyncio.wait({self.opening})
        if self.opening.cancelled():
            raise ExitedError("the agent is ending")
        return self.opening.result()

    @property
    def over(self) -> bool:
        """True when nobody can be admitted any more."""
        return self.opening.done() and (self.tenancy is None or self.tenancy.stopped)

    def cancel(self) -> None:
        """Give the deployment up if it is under way; asking twice would interrupt its undoing."""
        if not self.opening.cancelling():
            self.opening.cancel()


class AgentHost:
    """Fills the guests' port. Lives on the event loop."""

    def __init__(
        self,
        deployer: Deployer,
        starter: Starter,
        upkeep: Upkeep,
        steps: Steps,
        clock: Clock = boottime,
    ) -> None:
        self._deployer = deployer
        self._starter = starter
        self._upkeep = upkeep
        self._steps = steps
        self._clock = clock
        self._leases = LeaseBook()
        self._tenancies: dict[bytes, EnclaveTenancy] = {}
        self._shares: dict[Order, _Share] = {}
        self._members: dict[Member, _Share] = {}
        self._closing: dict[Order, asyncio.Task[None]] = {}
        self._ending: set[bytes] = set()
        self._revoked: deque[bytes] = deque(maxlen=MAX_REMEMBERED_REVOCATIONS)
        self._changed = asyncio.Event()
        self._deploying = 0
        self._renewal: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    # -------------------------------------------------------------- the guests' port

    async def launch(self, vm_id: str, request: LaunchRequest) -> Member:
        """See the guests' port. The first process of a VM has the release deployed, others join it."""
        self._steps.step("deployment", 1, 0)
        self._steps.step("deployment", 2, 0)
        share = self._share(Order(vm_id, request.secret_binary_id, request.interface_digest))
        member = None
        try:
            member = Member(await share.opened())
            await member.tenancy.admit(member, self._clock)
        except BaseException:
            await asyncio.shield(self._leave(share, member))
            raise
        self._members[member] = share
        return member

    async def rejoin(self, member: Member) -> None:
        """See the guests' port."""
        await member.tenancy.admit(member, self._clock)

    async def end(self, member: Member) -> None:
        """See the guests' port. Once begun it is carried through, even if the caller is cancelled."""
        share = self._members.pop(member, None)
        if share is not None:
            await asyncio.shield(self._leave(share, member))

    # -------------------------------------------------------------- what processes share

    def _share(self, order: Order) -> _Share:
        share = self._shares.get(order)
        if share is None or share.over:
            share = self._shares[order] = _Share(order, self._background(self._open(order)))
        share.users += 1
        return share

    def _leave(self, share: _Share, member: Member | None) -> asyncio.Task[None]:
        """Take one user out, at once; who is the last ends the tenancy, or gives up its deployment."""
        share.users -= 1
        last = not share.users
        if last and self._shares.get(share.order) is share:
            del self._shares[share.order]
        leaving = self._background(self._left(share, member, last=last))
        if last:
            self._closing[share.order] = leaving
            leaving.add_done_callback(partial(self._closed, share.order))
        return leaving

    def _closed(self, order: Order, closing: asyncio.Task[None]) -> None:
        if self._closing.get(order) is closing:
            del self._closing[order]

    async def _left(self, share: _Share, member: Member | None, *, last: bool) -> None:
        if last:
            share.cancel()
            await asyncio.wait({share.opening})
            if share.tenancy is not None:
                await self._end(share.tenancy)
        if member is not None:
            await member.tenancy.dismiss(member)

    async def _end(self, tenancy: EnclaveTenancy) -> None:
        """Whoever takes a tenancy out of the table gives its lease back; others wait until it has stopped."""
        if self._tenancies.pop(tenancy.release.lease.lease_id, None) is not None:
            await self._stop_one(tenancy, Status.EXITED)
        else:
            await tenancy.stop(Status.EXITED)

    async def _open(self, order: Order) -> EnclaveTenancy:
        if closing := self._closing.get(order):
            await asyncio.wait({closing})  # a program that is started again needs the seat it has just left
        return await self._run(await self._deploy(order))

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
        tenancy = EnclaveTenancy(release, self._starter, self._upkeep, self._steps)
        self._leases.add(release.lease)
        self._tenancies[release.lease.lease_id] = tenancy
        self._changed.set()
        try:
            if release.lease.lease_id in self._revoked or release.lease.expires_at <= self._clock():
                stopping = self._background(self._stop((release.lease.lease_id,), Status.REVOKED))
                await asyncio.shield(stopping)
            await tenancy.start(deployment.plan)
        except BaseException:
            await asyncio.shield(self._background(self._undo(tenancy, deployment)))
            raise
        return tenancy

    async def _undo(self, tenancy: EnclaveTenancy, deployment: Deployment) -> None:
        await self._end(tenancy)
        await asyncio.to_thread(deployment.discard)  # it may not have come to its start

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
        for share in self._shares.values():
            share.cancel()
        await asyncio.gather(*(self._end(tenancy) for tenancy in tuple(self._tenancies.values())))
        await asyncio.gather(*(self.end(member) for member in tuple(self._members)))
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
        if self._deploying:
            return
        for lease_id in [each for each in lease_ids if each not in self._leases and each not in self._ending]:
            await asyncio.to_thread(self._deployer.end_lease, lease_id)

    async def _stop(self, lease_ids: tuple[bytes, ...], status: Status) -> None:
        """Destroy enclaves whose leases have ended; the guests keep their connections.

        The SBS is told once they are gone: until then it must count the seats as taken.
        """
        stopping = []
        for lease_id in lease_ids:
            tenancy = self._tenancies.pop(lease_id, None)
            if tenancy is not None:
                self._ending.add(lease_id)
                stopping.append(self._stop_one(tenancy, status))
            self._leases.drop(lease_id)
        await asyncio.gather(*stopping)

    async def _stop_one(self, tenancy: EnclaveTenancy, status: Status) -> None:
        lease_id = tenancy.release.lease.lease_id
        self._ending.add(lease_id)
        try:
            await tenancy.stop(status)
            self._leases.drop(lease_id)
            await asyncio.to_thread(self._deployer.end_lease, lease_id)
        finally:
            self._ending.discard(lease_id)

    def _background(self, work: Coroutine[None, None, _T]) -> asyncio.Task[_T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
