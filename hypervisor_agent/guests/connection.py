"""One guest process on its control connection: fixed requests in, replies with a descriptor out."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Generic, TypeVar

import structlog

from cafe_lib.errors import CafeError, ConflictError, MalformedError
from hypervisor_agent.abi import Status
from hypervisor_agent.guests.messages import REQUEST_BYTES, LaunchReply, LaunchRequest
from hypervisor_agent.guests.port import EnclaveHost, MemberT
from hypervisor_agent.guests.status import message_of, status_of

REQUEST_SECONDS = 10.0
"""How long a guest may take for its first request, or for the rest of one it has begun."""
FAILURE_PAUSE_SECONDS = 1.0
"""How long a launch that failed counts as under way."""

_log = structlog.get_logger()
_T = TypeVar("_T")


class GuestGoneError(Exception):
    """The guest closed its connection, or spoke out of turn: nothing is owed to it any more."""


class GuestConnection(Generic[MemberT]):
    """Serves one connection until it closes; then what it held is given up."""

    def __init__(
        self, connection: socket.socket, vm_id: str, host: EnclaveHost[MemberT], turns: asyncio.Semaphore
    ) -> None:
        """Take over a connection; ``turns`` bounds the launches of one VM that are under way at a time."""
        self._socket = connection
        self._vm_id = vm_id
        self._host = host
        self._turns = turns
        self._member: MemberT | None = None

    async def serve(self) -> None:
        """Answer requests until the guest goes; never raises for anything a guest does."""
        try:
            while True:
                await self._answer(await self._receive())
        except (GuestGoneError, OSError, TimeoutError):
            _log.debug("guest gone", vm=self._vm_id)
        finally:
            self._socket.close()
            if self._member is not None:
                await asyncio.shield(self._host.end(self._member))

    async def _answer(self, data: bytes) -> None:
        number = int.from_bytes(data[8:16], "little")
        try:
            request = LaunchRequest.parse(data)
            member = await self._until_gone(self._launch(request))
            reply, descriptor = LaunchReply(number, Status.OK, member.region_bytes), member.channel_fd
        except CafeError as error:
            _log.warning("launch refused", vm=self._vm_id, code=error.code, detail=error.detail)
            self._reply(LaunchReply(number, status_of(error), message=message_of(error)))
            if isinstance(error, MalformedError):
                raise GuestGoneError from error  # out of step: nothing after it can be trusted
            return
        self._reply(reply, descriptor)

    async def _launch(self, request: LaunchRequest) -> MemberT:
        """Take a turn; one that came to nothing is given back late.

        Else a guest could make its agent hammer the SBS, whose patience with a host other VMs need as well.
        """
        await self._turns.acquire()
        pause = FAILURE_PAUSE_SECONDS
        try:
            member = await self._start(request)
            pause = 0.0
            return member
        finally:
            asyncio.get_running_loop().call_later(pause, self._turns.release)

    async def _start(self, request: LaunchRequest) -> MemberT:
        if self._member is not None and self._member.stopped:
            await self._host.end(self._member)
            self._member = None
        if self._member is None:
            self._member = await self._host.launch(self._vm_id, request)
        elif self._member.secret_binary_id != request.secret_binary_id:
            raise ConflictError("this connection belongs to another release")
        else:
            await self._host.rejoin(self._member)
        return self._member

    async def _receive(self) -> bytes:
        """Wait for one whole request: as long as it likes when an enclave runs, else not for ever."""
        loop = asyncio.get_running_loop()
        idle = None if self._member is not None else REQUEST_SECONDS
        data = await asyncio.wait_for(loop.sock_recv(self._socket, REQUEST_BYTES), idle)
        while data and len(data) < REQUEST_BYTES:
            more = loop.sock_recv(self._socket, REQUEST_BYTES - len(data))
            rest = await asyncio.wait_for(more, REQUEST_SECONDS)
            data = data + rest if rest else b""
        if not data:
            raise GuestGoneError
        return data

    async def _until_gone(self, work: Coroutine[None, None, _T]) -> _T:
        """Do the work, but give it up when the guest closes or sends before it was answered."""
        loop = asyncio.get_running_loop()
        task, readable = asyncio.ensure_future(work), asyncio.Event()
        watch = asyncio.ensure_future(readable.wait())
        loop.add_reader(self._socket, readable.set)
        try:
            await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(self._socket)
            watch.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        if task.cancelled():
            raise GuestGoneError
        return task.result()

    def _reply(self, reply: LaunchReply, descriptor: int | None = None) -> None:
        """Send at once: a guest that does not read its replies is not waited for."""
        data = reply.encode()
        sent = socket.send_fds(self._socket, [data], [] if descriptor is None else [descriptor])
        if sent != len(data):
            raise GuestGoneError
