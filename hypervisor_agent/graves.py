"""Enclaves on their way out: wiping takes longer than a replacement may, so it happens beside it."""

from __future__ import annotations

import asyncio

import structlog

from hypervisor_agent.abi import Status
from hypervisor_agent.enclave.enclave import Enclave

_log = structlog.get_logger()


class Graves:
    """Lives on the event loop. What is buried here must not be watched any more."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def bury(self, enclave: Enclave, status: Status = Status.EXITED, pause_seconds: float = 0) -> None:
        """Destroy an enclave, after a pause if it does no harm any more; returns at once."""
        task = asyncio.get_running_loop().create_task(_destroy(enclave, status, pause_seconds))
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


async def _destroy(enclave: Enclave, status: Status, pause_seconds: float) -> None:
    if pause_seconds:
        await asyncio.sleep(pause_seconds)
    await asyncio.to_thread(enclave.destroy, status)
