"""One enclave at a time, under one lease, for one guest process; replaced after a fault within a budget."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

import structlog

from cafe_lib.errors import CafeError, ExitedError, LicenceError
from hypervisor_agent.abi import Status
from hypervisor_agent.enclave.enclave import Enclave
from hypervisor_agent.leases import Clock, RestartBudget
from hypervisor_agent.plan import EnclavePlan
from hypervisor_agent.release import Release
from hypervisor_agent.steps import Steps

_log = structlog.get_logger()
_T = TypeVar("_T")


class Starter(Protocol):
    """Starts enclaves; blocks until they take calls."""

    def start(self, plan: EnclavePlan) -> Enclave:
        """Run a plan; on an error everything is wiped. Raises EnclaveError or HostError."""


async def in_thread(
    work: Callable[[], _T], undo: Callable[[_T], object], hurry: Callable[[], object] = lambda: None
) -> _T:
    """Do blocking work in a thread; when cancelled, ``hurry`` it, wait, and ``undo`` what it has done."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        hurry()
        await asyncio.wait({task})
        if not task.cancelled() and task.exception() is None:
            await asyncio.to_thread(undo, task.result())
        raise


class EnclaveTenancy:
    """Lives on the event loop; blocking work goes to threads, one at a time."""

    def __init__(self, release: Release, starter: Starter, budget: RestartBudget, steps: Steps) -> None:
        self.release = release
        self._starter = starter
        self._budget = budget
        self._steps = steps
        self._lock = asyncio.Lock()
        self._enclave: Enclave | None = None
        self._failure: CafeError = ExitedError("the enclave has ended")
        self._stopped: Status | None = None

    @property
    def secret_binary_id(self) -> bytes:
        """Which release runs."""
        return self.release.order.secret_binary_id

    @property
    def channel_fd(self) -> int:
        """The channel of the running enclave; raises ExitedError when there is none."""
        return self._running().channel.fd

    @property
    def region_bytes(self) -> int:
        """The size of the channel; raises ExitedError when no enclave runs."""
        return self._running().channel.size

    @property
    def stopped(self) -> bool:
        """True once :meth:`stop` was called: nothing is started any more."""
        return self._stopped is not None

    def _running(self) -> Enclave:
        if self._enclave is None:
            raise self._failure
        return self._enclave

    async def start(self, plan: EnclavePlan) -> None:
        """Run the first enclave; raises EnclaveError, HostError, or LicenceError when stopped meanwhile."""
        started = time.perf_counter()
        async with self._lock:
            await self._start(plan)
        self._steps.step("loading", 5, (time.perf_counter() - started) * 1000)

    async def replace(self, clock: Clock) -> None:
        """End the present enclave, if it still runs, and start a fresh one from the kept ciphertext.

        Raises what ended the last enclave once the restart budget is used up.
        """
        async with self._lock:
            await self._destroy(Status.EXITED)
            self._refuse_when_stopped()
            if not self._budget.take(clock()):
                raise self._failure
            plan = await in_thread(self.release.load, lambda unused: unused.memory.wipe())
            await self._start(plan)
        self._steps.event("enclave", state="replaced", vm=self.release.order.vm_id)

    async def stop(self, status: Status) -> None:
        """Destroy the enclave and start no other; waiting calls are told ``status``."""
        if self._stopped is None:
            self._stopped = status
        async with self._lock:
            await self._destroy(self._stopped)

    def _refuse_when_stopped(self) -> None:
        if self._stopped is not None:
            raise LicenceError("the lease has ended")

    async def _start(self, plan: EnclavePlan) -> None:
        if self._stopped is not None:
            await asyncio.to_thread(plan.memory.wipe)
        self._refuse_when_stopped()
        enclave = await in_thread(lambda: self._starter.start(plan), lambda unused: unused.destroy())
        self._enclave = enclave
        asyncio.get_running_loop().add_reader(enclave.fileno(), self._on_end, enclave)
        if self._stopped is not None:
            await self._destroy(self._stopped)
        self._refuse_when_stopped()

    def _on_end(self, enclave: Enclave) -> None:
        """Collect the end of an enclave that ended by itself."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(enclave.fileno())
        task = loop.create_task(self._collect(enclave))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _collect(self, enclave: Enclave) -> None:
        async with self._lock:
            if self._enclave is not enclave:
                return
            outcome = await asyncio.to_thread(enclave.wait, 0)
            status = Status.EXITED
            if outcome is not None:
                status = outcome.status
                self._failure = outcome.error
                _log.warning(
                    "enclave ended",
                    vm=self.release.order.vm_id,
                    release=self.release.name,
                    code=outcome.error.code,
                    detail=outcome.error.detail,
                )
            await self._destroy(status)

    async def _destroy(self, status: Status) -> None:
        enclave, self._enclave = self._enclave, None
        if enclave is None:
            return
        asyncio.get_running_loop().remove_reader(enclave.fileno())
        await asyncio.shield(asyncio.to_thread(enclave.destroy, status))
        self._steps.event("enclave", state="ended", vm=self.release.order.vm_id, status=status.name.lower())
