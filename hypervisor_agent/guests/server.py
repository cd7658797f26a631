"""One UNIX socket per VM: who comes in by it IS that VM, a guest never names itself."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic

import structlog

from cafe_lib.errors import HostError
from hypervisor_agent.guests.connection import GuestConnection
from hypervisor_agent.guests.port import EnclaveHost, MemberT

MAX_CONNECTIONS = 64
"""Guest processes of one VM at a time; further ones are turned away."""

MAX_LAUNCHES = 4
"""Launches of one VM under way at a time: a flood of one VM does not keep the others waiting."""
ACCEPT_PAUSE_SECONDS = 0.1

_VM_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class GuestSocket:
    """Where a VM reaches the agent."""

    vm_id: str
    path: Path

    @classmethod
    def parse(cls, text: str, directory: Path) -> GuestSocket:
        """Parse ``VM_ID`` or ``VM_ID=SOCKET``; raises HostError. The default is in ``directory``."""
        vm_id, _, path = text.partition("=")
        if not _VM_ID.fullmatch(vm_id):
            raise HostError(f"{vm_id!r} is not a VM id", hint="up to 64 letters, digits, '.', '_' and '-'")
        return cls(vm_id, Path(path) if path else directory / f"{vm_id}.sock")


class GuestServer(Generic[MemberT]):
    """Listens on every VM's socket and serves the connections."""

    def __init__(self, sockets: list[GuestSocket], host: EnclaveHost[MemberT]) -> None:
        self._sockets = sockets
        self._host = host
        self._listeners: list[tuple[socket.socket, GuestSocket]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self) -> None:
        """Bind all sockets, 0600; raises HostError when one is in use."""
        for place in self._sockets:
            self._listeners.append((_bind(place.path), place))

    async def serve(self) -> None:
        """Accept until cancelled; then end every connection and remove the sockets."""
        try:
            async with asyncio.TaskGroup() as group:
                for listener, place in self._listeners:
                    group.create_task(self._accept(listener, place.vm_id))
        finally:
            self.close()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def close(self) -> None:
        """Stop listening and remove the sockets' files."""
        for listener, place in self._listeners:
            listener.close()
            place.path.unlink(missing_ok=True)
        self._listeners.clear()

    async def _accept(self, listener: socket.socket, vm_id: str) -> None:
        loop = asyncio.get_running_loop()
        turns = asyncio.Semaphore(MAX_LAUNCHES)
        live: set[asyncio.Task[None]] = set()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:  # out of descriptors, or the guest has gone already
                _log.warning("accept failed", vm=vm_id, error=error.strerror)
                await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                continue
            if len(live) >= MAX_CONNECTIONS:
                _log.warning("too many guest processes", vm=vm_id, limit=MAX_CONNECTIONS)
                connection.close()
                continue
            connection.settimeout(0)
            task = loop.create_task(GuestConnection(connection, vm_id, self._host, turns).serve())
            for tasks in (live, self._tasks):
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            task.add_done_callback(partial(_finish, connection))


def _finish(connection: socket.socket, task: asyncio.Task[None]) -> None:
    connection.close()  # a task cancelled before its first step could not
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("guest connection failed", error=type(error).__name__, exc_info=error)


def _bind(path: Path) -> socket.socket:
    with ExitStack() as undo:
        listener = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.settimeout(0)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _remove_stale(path)
            with _owner_only():
                listener.bind(str(path))
            listener.listen(MAX_CONNECTIONS)
        except OSError as error:
            raise HostError(f"guest socket {path}: {error.strerror or error}") from error
        undo.pop_all()
        return listener


@contextmanager
def _owner_only() -> Iterator[None]:
    mask = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(mask)


def _remove_stale(path: Path) -> None:
    """Remove the socket of an agent that was killed; one that answers, or another file, stays."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise HostError(f"{path} is there and is not a socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
            else:
                raise HostError(f"another agent serves {path}")
