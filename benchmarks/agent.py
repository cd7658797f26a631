"""The real agent's host and guest server on this event loop; in an SBS's place, what this folder built."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import structlog

from hypervisor_agent.enclave.backend import Backend
from hypervisor_agent.enclave.process import SparePool
from hypervisor_agent.guests.server import GuestServer, GuestSocket
from hypervisor_agent.host import AgentHost
from hypervisor_agent.release import Deployment, Order, Release
from hypervisor_agent.service import PooledStarter
from hypervisor_agent.steps import Steps
from hypervisor_agent.tenancy import Upkeep

_RESTARTS = 10_000  # as many as a benchmark likes
_READY_SECONDS = 30.0


@dataclass(frozen=True)
class LocalDeployer:
    """Grants one release that is at hand to whoever asks."""

    release: Release

    def deploy(self, order: Order, _cancelled: threading.Event) -> Deployment:
        """Load it."""
        release = replace(self.release, order=order)
        return Deployment(release, release.load())

    def renew(self) -> tuple[float, tuple[tuple[bytes, int], ...], tuple[bytes, ...]]:
        """Nothing here outlasts its lease, so nobody renews one."""
        raise AssertionError

    def end_lease(self, lease_id: bytes) -> None:
        """There is nobody to tell."""


class Standbys(StringIO):
    """Hears the agent's events, and counts the standbys that have become ready."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Semaphore(0)

    def write(self, text: str) -> int:
        """Take a part of a line; an event is all in one."""
        if text.strip():
            event = json.loads(text)
            if event["event"] == "standby" and event["state"] == "ready":
                self._loop.call_soon_threadsafe(self._ready.release)
        return len(text)

    async def ready(self) -> None:
        """Wait for the next one; raises TimeoutError."""
        await asyncio.wait_for(self._ready.acquire(), _READY_SECONDS)


@asynccontextmanager
async def agent(backend: Backend, release: Release, socket: Path) -> AsyncIterator[Standbys]:
    """Serve guests of one VM on ``socket``, with a standby for each enclave."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    pool, standbys = SparePool(backend), Standbys()
    upkeep = Upkeep(restarts=_RESTARTS, standby=True)
    host = AgentHost(LocalDeployer(release), PooledStarter(pool), upkeep, Steps(standbys))
    server = GuestServer([GuestSocket(release.order.vm_id, socket)], host)
    server.listen()
    serving = asyncio.create_task(server.serve())
    try:
        yield standbys
    finally:
        serving.cancel()
        await asyncio.wait({serving})
        await host.close()
        await asyncio.to_thread(pool.close)
