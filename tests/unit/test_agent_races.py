"""Processes that come, crash, ask again and go in any order, under revocations: nothing is left over."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress

import pytest
from agent_enclaves import REQUEST, FakeEnclave, World, run, without_pause

from cafe_lib import errors
from hypervisor_agent import tenancy
from hypervisor_agent.tenancy import Member

PROCESSES, STEPS = 6, 12
SLEEPS = (0, 0, 0.001, 0.003)


class Process:
    """One guest process: it launches, rejoins, gives up in the middle, and goes."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self.world, self.chance = world, chance
        self.member: Member | None = None
        self.vm = chance.choice(("vm1", "vm1", "vm2"))

    async def live(self) -> None:
        for _ in range(STEPS):
            await asyncio.sleep(self.chance.choice(SLEEPS))
            work = asyncio.create_task(self.ask())
            if self.chance.random() < 0.25:
                await asyncio.sleep(self.chance.choice(SLEEPS))
                work.cancel()
            with suppress(errors.CafeError, asyncio.CancelledError):
                await work
            self.check()
            if self.chance.random() < 0.3:
                await self.go()
        await self.go()

    async def ask(self) -> None:
        """As the connection does."""
        if self.member is not None and self.member.stopped:
            await self.go()
        if self.member is None:
            self.member = await self.world.host.launch(self.vm, REQUEST)
        else:
            await self.world.host.rejoin(self.member)

    def check(self) -> None:
        if self.member is not None and self.member.region is not None:
            channel = self.member.channel
            assert channel is not None
            assert not channel.closed  # type: ignore[attr-defined] # a fake

    async def go(self) -> None:
        member, self.member = self.member, None
        if member is not None:
            await self.world.host.end(member)


async def disturb(world: World, chance: random.Random) -> None:
    while True:
        await asyncio.sleep(chance.choice(SLEEPS))
        living: list[FakeEnclave] = [enclave for enclave in world.enclaves if enclave.alive]
        if living:
            chance.choice(living).fault()
        if chance.random() < 0.1 and world.orders:
            world.revoke(leases=(len(world.orders).to_bytes(16, "big"),))
        if chance.random() < 0.02:
            world.revoke("release", (), REQUEST.secret_binary_id)
        serving = [enclave for enclave in world.enclaves if enclave.channels]
        assert len(serving) <= 2 + 2, "one for each VM, and one of each just ended"


@pytest.mark.case("B17")
@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_nothing_is_left(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pause(monkeypatch)
    monkeypatch.setattr(tenancy, "LAST_WORD_SECONDS", 0.002)
    chance = random.Random(seed)  # noqa: S311 - no secret

    async def scenario(world: World) -> None:
        started = time.monotonic()
        disturbing = asyncio.create_task(disturb(world, chance))
        processes = [Process(world, chance) for _ in range(PROCESSES)]
        living = asyncio.gather(*(process.live() for process in processes))
        try:
            await asyncio.wait({living, disturbing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            disturbing.cancel()
        await living
        assert world.orders, "something was launched"
        assert time.monotonic() - started < 25
        assert world.host._members == world.host._shares == {}

    run(
        scenario,
        restarts=1000,
        standby=chance.random() < 0.7,
        regions=chance.choice((2, 8)),
        pause=lambda: chance.choice(SLEEPS),
    )
