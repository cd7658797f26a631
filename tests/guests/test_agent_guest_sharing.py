"""Guest processes on their sockets, the agent's host behind them: one enclave, and a channel for each."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from agent_enclaves import REQUEST, World, expect_soon
from agent_enclaves import run as run_world
from agent_guests import ask, connect
from agent_sbs import LEASE_ID

from hypervisor_agent.abi import Status
from hypervisor_agent.guests.server import GuestServer, GuestSocket


@asynccontextmanager
async def serving(world: World, path: Path) -> AsyncIterator[None]:
    server = GuestServer([GuestSocket("vm1", path)], world.host)
    server.listen()
    task = asyncio.create_task(server.serve())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def launch(client: socket.socket) -> int:
    """Ask for an enclave; return which file the channel is."""
    reply, fds = await ask(client, REQUEST.encode())
    assert reply is not None
    assert (reply.status, len(fds)) == (Status.OK, 1)
    inode = os.fstat(fds[0]).st_ino
    os.close(fds[0])
    return inode


@pytest.mark.case("B16", "B17")
def test_a_crash_leaves_both_processes_their_channels(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        async with serving(world, tmp_path / "s"):
            first, second = await connect(tmp_path / "s"), await connect(tmp_path / "s")
            files = [await launch(first), await launch(second)]
            assert len(set(files)) == 2
            world.enclaves[0].fault()
            assert [await launch(first), await launch(second)] == files
            assert len(world.enclaves[1].channels) == 2
            first.close()
            await expect_soon(lambda: world.channels[0].closed)
            assert world.ended == []
            second.close()
            await expect_soon(lambda: world.ended == [LEASE_ID])

    world = run_world(scenario)
    assert len(world.orders) == 1
    assert len(world.enclaves) == 2


def test_a_channel_that_was_given_up_is_another_file_afterwards(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        async with serving(world, tmp_path / "s"):
            with closing(await connect(tmp_path / "s")) as client:
                assert await launch(client) != await launch(client)

    assert len(run_world(scenario).enclaves) == 1


@pytest.mark.case("B17")
def test_a_process_too_many_is_told_so(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        async with serving(world, tmp_path / "s"):
            with (
                closing(await connect(tmp_path / "s")) as first,
                closing(await connect(tmp_path / "s")) as second,
            ):
                await launch(first)
                reply, fds = await ask(second, REQUEST.encode())
                assert reply is not None
                assert (reply.status, fds) == (Status.LIMIT, [])
                assert reply.message.endswith("The enclave has no place for another process; end one.")

    run_world(scenario, regions=1)


@pytest.mark.case("B17")
def test_no_descriptor_is_left_of_many_processes(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        async with serving(world, tmp_path / "s"):
            for number in range(20):
                with closing(await connect(tmp_path / "s")) as client:
                    await launch(client)
                    if number % 3 == 0:
                        world.enclaves[-1].fault()
                        await launch(client)

    before = len(list(Path("/proc/self/fd").iterdir()))
    run_world(scenario, restarts=1000)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
