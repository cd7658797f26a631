"""A spare enclave of a release: started, without a channel, ready to take the place of one that crashes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from cafe_lib.errors import CafeError
from hypervisor_agent.blocking import in_thread
from hypervisor_agent.enclave.enclave import Enclave
from hypervisor_agent.graves import Graves
from hypervisor_agent.release import Release
from hypervisor_agent.starter import Starter, has_news

PAUSE_SECONDS = 0.1
"""How long the making of a spare waits, so that it does not slow down the launch it follows."""

_log = structlog.get_logger()


class Standby:
    """At most one spare, made in the background; whatever goes wrong with it is logged and no more.

    Lives on the event loop.
    """

    def __init__(self, release: Release, starter: Starter, tell: Callable[[str], object]) -> None:
        """``tell`` is called with ``ready``, ``used`` or ``dropped``."""
        self._release = release
        self._starter = starter
        self._tell = tell
        self._graves = Graves()
        self._spare: Enclave | None = None
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._closed = False

    def prepare(self) -> None:
        """Have a spare made if there is none; returns at once."""
        if self._closed or self._spare is not None or self._task is not None:
            return
        self._hurry.clear()
        self._task = asyncio.get_running_loop().create_task(self._prepare())
        self._task.add_done_callback(self._prepared)

    async def _prepare(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), PAUSE_SECONDS)
        plan = await in_thread(self._release.load, lambda unused: unused.memory.wipe())
        spare = await in_thread(lambda: self._starter.start(plan), lambda unused: unused.destroy())
        self._spare = spare
        asyncio.get_running_loop().add_reader(spare.fileno(), self._on_end)
        self._tell("ready")

    def _prepared(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled() or (error := task.exception()) is None:
            return
        detail = error.detail if isinstance(error, CafeError) else type(error).__name__
        _log.warning("no standby", vm=self._release.order.vm_id, release=self._release.name, detail=detail)

    def _on_end(self) -> None:
        """Drop a spare that died. The next launch or replacement has another made: it might die as well."""
        spare = self._let_go()
        if spare is not None:
            self._drop(spare)

    def _drop(self, spare: Enclave) -> None:
        self._graves.bury(spare)
        self._tell("dropped")

    def _let_go(self) -> Enclave | None:
        spare, self._spare = self._spare, None
        if spare is not None:
            asyncio.get_running_loop().remove_reader(spare.fileno())
        return spare

    async def take(self) -> Enclave | None:
        """Return the spare, waiting for one that is being made; None when there is none that lives."""
        if self._spare is None and self._task is not None:
            self._hurry.set()
            await asyncio.wait({self._task})
        spare = self._let_go()
        if spare is not None and has_news(spare):
            self._drop(spare)
            return None
        if spare is not None:
            self._tell("used")
        return spare

    async def close(self) -> None:
        """Destroy the spare and make no other; returns when nothing is left."""
        self._closed = True
        if self._task is not None:
            if not self._task.cancelling():  # twice would interrupt the undoing
                self._task.cancel()
            await asyncio.wait({self._task})
        spare = self._let_go()
        if spare is not None:
            self._graves.bury(spare)
        await self._graves.settled()
