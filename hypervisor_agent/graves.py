"""Enclaves on their way out: wiping and logging take longer than a replacement may, and happen beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import structlog

from hypervisor_agent.abi import Status
from hypervisor_agent.enclave.enclave import Enclave

PAUSE_SECONDS = 0.02
"""So long an enclave that has ended waits for its burial: the one that replaces it comes first."""

_log = structlog.get_logger()


class Graves:
    """Lives on the event loop. What is buried here must not be watched any more."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def bury(self, enclave: Enclave, status: Status = Status.EXITED) -> None:
        """Begin to destroy an enclave; returns at once."""
        self._begin(asyncio.to_thread(enclave.destroy, status))

    def bury_later(self, enclave: Enclave, status: Status, tell: Callable[[], object]) -> None:
        """Destroy an enclave that has ended by itself, after a pause, and ``tell`` of it; returns at once."""
        self._begin(_bury_later(enclave, status, tell))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._buried)

    def _buried(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("an enclave was not destroyed", error=type(error).__name__, exc_info=error)

    async def settled(self) -> None:
        """Wait until every enclave that was buried here is gone."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))


async def _bury_later(enclave: Enclave, status: Status, tell: Callable[[], object]) -> None:
    await asyncio.sleep(PAUSE_SECONDS)
    tell()
    await asyncio.to_thread(enclave.destroy, status)
