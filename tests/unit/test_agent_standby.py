"""The spare enclave: when there is one, what it serves for, and that it never outlives its lease."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial

import pytest
from agent_enclaves import REQUEST, World, expect_soon, without_pause
from agent_enclaves import run as run_world
from agent_sbs import LEASE_ID

from cafe_lib import errors
from hypervisor_agent import standby
from hypervisor_agent.abi import Status
from hypervisor_agent.tenancy import Member

run = partial(run_world, standby=True)
Scenario = Callable[[World], Coroutine[None, None, None]]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pause(monkeypatch)


def ready(world: World) -> bool:
    told = [world.output.getvalue().count(f'"state": "{state}"') for state in ("ready", "used", "dropped")]
    return told[0] > told[1] + told[2]


async def launch(world: World) -> Member:
    """Launch, and wait for the standby."""
    member = await world.host.launch("vm1", REQUEST)
    await expect_soon(lambda: ready(world))
    return member


def test_a_crash_is_answered_by_the_standby_and_another_one_is_made() -> None:
    async def scenario(world: World) -> None:
        member = await launch(world)
        assert len(world.running) == 2
        spare = world.enclaves[1]
        assert spare.channels == {}
        world.start_go.clear()
        world.enclaves[0].fault()
        await world.host.rejoin(member)  # nothing can be started meanwhile
        assert list(spare.channels.values()) == world.channels
        world.start_go.set()
        await expect_soon(lambda: len(world.enclaves) == 3 and len(world.running) == 2)

    run(scenario)


def test_many_processes_have_one_standby() -> None:
    async def scenario(world: World) -> None:
        await asyncio.gather(*(world.host.launch("vm1", REQUEST) for _ in range(4)))
        await expect_soon(lambda: ready(world))
        await asyncio.sleep(0.1)

    assert len(run(scenario).enclaves) == 2


def test_only_its_use_counts_against_the_budget() -> None:
    async def scenario(world: World) -> None:
        member = await launch(world)
        for _ in range(2):
            world.enclaves[-2].fault()
            await world.host.rejoin(member)
            await expect_soon(lambda: ready(world))
        world.enclaves[-2].fault()
        with pytest.raises(errors.FaultError):
            await world.host.rejoin(member)

    run(scenario, restarts=2)


def test_a_crash_while_the_standby_is_made_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standby, "PAUSE_SECONDS", 1000)

    async def scenario(world: World) -> None:
        member = await world.host.launch("vm1", REQUEST)
        world.enclaves[0].fault()
        await asyncio.wait_for(world.host.rejoin(member), 5)

    world = run(scenario)
    assert len(world.enclaves) == 2
    assert '"used"' in world.output.getvalue()


@pytest.mark.case("B16")
@pytest.mark.parametrize("noticed", [True, False])
def test_a_standby_that_died_is_dropped(monkeypatch: pytest.MonkeyPatch, *, noticed: bool) -> None:
    async def scenario(world: World) -> None:
        if not noticed:
            monkeypatch.setattr(standby.Standby, "_on_end", lambda _: None)
        member = await launch(world)
        spare = world.enclaves[1]
        spare.fault()
        if noticed:
            await expect_soon(lambda: spare.destroyed is not None)
        monkeypatch.setattr(standby, "PAUSE_SECONDS", 1000)
        assert member.channel_fd, "its owner's calls go on"
        world.enclaves[0].fault()
        await world.host.rejoin(member)
        assert spare.channels == {}
        assert member.channel_fd

    assert len(run(scenario, restarts=1).enclaves) == 3


def test_a_standby_that_does_not_start_is_no_guests_business() -> None:
    async def scenario(world: World) -> None:
        member = await world.host.launch("vm1", REQUEST)
        world.start_error = errors.KvmError("out of memory")
        await asyncio.sleep(0.1)
        assert member.channel_fd
        world.start_error = None
        world.enclaves[0].fault()
        await world.host.rejoin(member)
        assert member.channel_fd
        await expect_soon(lambda: len(world.running) == 2)

    run(scenario)


@pytest.mark.parametrize("kind", ["licence", "host"])
def test_a_revocation_kills_the_running_enclave_and_the_standby(kind: str) -> None:
    async def scenario(world: World) -> None:
        await launch(world)
        world.revoke(kind, (LEASE_ID,) if kind == "licence" else ())
        await expect_soon(lambda: world.ended == [LEASE_ID])
        assert world.running == []
        assert world.enclaves[0].destroyed is Status.REVOKED
        assert world.channels[0].status is Status.REVOKED

    run(scenario)


def test_the_seat_is_given_back_only_when_the_standby_is_gone() -> None:
    async def scenario(world: World) -> None:
        member = await world.host.launch("vm1", REQUEST)
        world.start_go.clear()  # the standby is being started
        await asyncio.sleep(0.05)
        ending = asyncio.create_task(world.host.end(member))
        await expect_soon(lambda: world.enclaves[0].destroyed is not None)
        await asyncio.sleep(0.05)
        assert world.ended == []
        world.start_go.set()
        await ending
        assert world.ended == [LEASE_ID]
        assert world.running == []

    assert len(run(scenario).enclaves) == 2


def test_there_is_none_when_the_operator_wants_none() -> None:
    async def scenario(world: World) -> None:
        await world.host.launch("vm1", REQUEST)
        await asyncio.sleep(0.1)

    assert len(run_world(scenario, standby=False).enclaves) == 1
