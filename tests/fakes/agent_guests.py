"""A host without enclaves behind real control sockets, and the guest's side of them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cafe_lib.errors import CafeError
from hypervisor_agent.guests.messages import (
    REPLY_BYTES,
    LaunchReply,
    LaunchRequest,
)
from hypervisor_agent.guests.server import GuestServer, GuestSocket

RELEASE = b"i" * 32
REGION_BYTES = 8192


@dataclass
class FakeMember:
    secret_binary_id: bytes
    channel_fd: int
    region_bytes: int = REGION_BYTES
    rejoined: int = 0
    stopped: bool = False


@dataclass
class FakeHost:
    """Starts nothing; says what it was asked."""

    launched: list[tuple[str, FakeMember]] = field(default_factory=list)
    ended: list[FakeMember] = field(default_factory=list)
    cancelled: int = 0
    refuse: CafeError | None = None
    delay: float = 0

    async def launch(self, vm_id: str, request: LaunchRequest) -> FakeMember:
        try:
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.refuse:
            raise self.refuse
        descriptor = os.memfd_create("channel")
        os.ftruncate(descriptor, REGION_BYTES)
        member = FakeMember(request.secret_binary_id, descriptor)
        self.launched.append((vm_id, member))
        return member

    async def rejoin(self, member: FakeMember) -> None:
        if self.refuse:
            raise self.refuse
        member.rejoined += 1

    async def end(self, member: FakeMember) -> None:
        os.close(member.channel_fd)
        self.ended.append(member)


@asynccontextmanager
async def serving(path: Path, host: FakeHost) -> AsyncIterator[GuestServer]:
    server = GuestServer([GuestSocket("vm1", path)], host)  # type: ignore[arg-type] # a fake
    server.listen()
    task = asyncio.create_task(server.serve())
    try:
        yield server
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.close()


def run(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))


async def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(0)
    await asyncio.get_running_loop().sock_connect(client, str(path))
    return client


async def receive(client: socket.socket) -> tuple[LaunchReply | None, list[int]]:
    """One reply and its descriptors; None when the agent closed."""
    for _ in range(500):
        try:
            data, fds, _, _ = socket.recv_fds(client, REPLY_BYTES, 4)
        except BlockingIOError:
            await asyncio.sleep(0.01)
            continue
        except ConnectionResetError:
            return None, []
        return (LaunchReply.parse(data) if data else None), fds
    raise AssertionError("no reply within five seconds")


async def ask(client: socket.socket, data: bytes) -> tuple[LaunchReply | None, list[int]]:
    await asyncio.get_running_loop().sock_sendall(client, data)
    return await receive(client)


async def expect_soon(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen within two seconds")
