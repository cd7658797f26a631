"""Leases, revocation, replacement and the end of guests, with enclaves that only pretend to run."""

from __future__ import annotations

import asyncio

import pytest
from agent_enclaves import REQUEST, World, expect_soon, run
from agent_sbs import LEASE_ID

from cafe_lib import errors
from hypervisor_agent import host as host_module
from hypervisor_agent.abi import Status


def test_a_guest_that_ends_gives_its_seat_back_once() -> None:
    async def scenario(world: World) -> None:
        member = await world.host.launch("vm1", REQUEST)
        assert (member.channel_fd, member.region_bytes) == (world.channels[0].fd, 8192)
        assert not member.stopped
        await world.host.end(member)
        await world.host.end(member)

    world = run(scenario)
    assert world.ended == [LEASE_ID]
    assert world.enclaves[0].destroyed is Status.EXITED


@pytest.mark.parametrize(
    ("kind", "leases", "release"),
    [
        ("licence", (LEASE_ID,), b""),
        ("lease", (LEASE_ID,), b""),
        ("release", (), REQUEST.secret_binary_id),
        ("host", (), b""),
    ],
)
def test_a_revocation_destroys_at_once(kind: str, leases: tuple[bytes, ...], release: bytes) -> None:
    async def scenario(world: World) -> None:
        member = await world.host.launch("vm1", REQUEST)
        world.revoke(kind, leases, release)
        await expect_soon(lambda: world.enclaves[0].destroyed is not None)
        assert member.stopped
        await expect_soon(lambda: world.ended == [LEASE_ID])
        with pytest.raises(errors.LicenceError):
            await world.host.rejoin(member)
        await world.host.end(member)

    world = run(scenario)
    assert world.enclaves[0].destroyed is Status.REVOKED
    assert world.ended == [LEASE_ID], "the seat is free once the enclave is gone"


def test_a_revocation_of_others_changes_nothing() -> None:
    async def scenario(world: World) -> None:
        await world.host.launch("vm1", REQUEST)
        world.revoke(leases=(b"x" * 16,))
        world.revoke("release", (), b"x" * 32)
        await asyncio.sleep(0.1)
        assert world.enclaves[0].destroyed is None

    run(scenario)


def test_a_revocation_that_overtakes_its_grant_is_not_lost() -> None:
    async def scenario(world: World) -> None:
        world.go.clear()
        launch = asyncio.create_task(world.host.launch("vm1", REQUEST))
        await asyncio.sleep(0.05)
        world.revoke()
        world.go.set()
        with pytest.raises(errors.LicenceError):
            await launch

    world = run(scenario)
    assert world.enclaves == []
    assert world.memories[0].wiped


@pytest.mark.case("A37")
def test_a_lease_that_ran_out_in_mid_stream_starts_nothing() -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(errors.LicenceError):
            await world.host.launch("vm1", REQUEST)

    world = run(scenario, lease_seconds=0)
    assert (world.enclaves, set(world.ended), world.memories[0].wiped) == ([], {LEASE_ID}, True)


def test_a_revocation_while_the_enclave_starts_ends_it() -> None:
    async def scenario(world: World) -> None:
        world.start_go.clear()
        launch = asyncio.create_task(world.host.launch("vm1", REQUEST))
        await asyncio.sleep(0.05)
        world.revoke()
        await asyncio.sleep(0.05)
        world.start_go.set()
        with pytest.raises(errors.LicenceError):
            await launch

    assert run(scenario).enclaves[0].destroyed is Status.REVOKED


def test_a_lease_is_renewed_at_a_third(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "LONGEST_SLEEP_SECONDS", 0.02)

    async def scenario(world: World) -> None:
        await world.host.launch("vm1", REQUEST)
        await asyncio.sleep(0.1)
        assert world.renewals == 0
        world.now += 10
        await expect_soon(lambda: world.renewals == 1)
        world.now += 25
        await expect_soon(lambda: world.renewals == 2)
        assert world.enclaves[0].destroyed is None

    run(scenario)


def test_a_lease_that_cannot_be_renewed_ends_its_enclave_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "LONGEST_SLEEP_SECONDS", 0.02)

    async def scenario(world: World) -> None:
        world.renewal_fails = True
        member = await world.host.launch("vm1", REQUEST)
        for _ in range(9):
            world.now += 3
            await asyncio.sleep(0.05)
        assert world.enclaves[0].destroyed is None
        world.now += 3
        await expect_soon(lambda: world.enclaves[0].destroyed is not None)
        assert member.stopped

    world = run(scenario)
    assert world.enclaves[0].destroyed is Status.REVOKED
    assert 3 <= world.renewals <= 9


def test_leases_that_ended_at_renewal_are_destroyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "LONGEST_SLEEP_SECONDS", 0.02)

    async def scenario(world: World) -> None:
        world.ended_at_renewal = (LEASE_ID,)
        await world.host.launch("vm1", REQUEST)
        world.now += 10
        await expect_soon(lambda: world.enclaves[0].destroyed is Status.REVOKED)

    run(scenario)


@pytest.mark.case("B17")
def test_leases_that_a_killed_agent_left_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "LONGEST_SLEEP_SECONDS", 0.02)

    async def scenario(world: World) -> None:
        stray = b"s" * 16
        world.strays = ((stray, 30),)
        await world.host.launch("vm1", REQUEST)
        world.go.clear()
        launch = asyncio.create_task(world.host.launch("vm2", REQUEST))
        world.now += 10
        await expect_soon(lambda: world.renewals == 1)
        await asyncio.sleep(0.05)
        assert world.ended == [], "it might be the lease of the launch that is under way"
        world.go.set()
        await launch
        world.now += 10
        await expect_soon(lambda: world.ended == [stray])

    run(scenario)


@pytest.mark.case("B17")
def test_giving_back_is_carried_through_when_the_guests_task_is_cancelled() -> None:
    async def scenario(world: World) -> None:
        member = await world.host.launch("vm1", REQUEST)
        ending = asyncio.create_task(world.host.end(member))
        await asyncio.sleep(0)
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        await expect_soon(lambda: world.ended == [LEASE_ID])

    run(scenario)


@pytest.mark.case("B16")
def test_a_fault_is_replaced_under_the_same_lease_within_the_budget() -> None:
    async def scenario(world: World) -> None:
        member = await world.host.launch("vm1", REQUEST)
        fd = member.channel_fd
        for _ in range(2):
            world.enclaves[-1].fault()
            await expect_soon(lambda: world.enclaves[-1].destroyed is not None)
            with pytest.raises(errors.FaultError):
                assert member.channel_fd
            await world.host.rejoin(member)
            assert member.channel_fd == fd, "the same channel"
        world.enclaves[-1].fault()
        with pytest.raises(errors.FaultError):
            await world.host.rejoin(member)
        world.now += 61
        await world.host.rejoin(member)

    world = run(scenario)
    assert len(world.enclaves) == 4
    assert len(world.channels) == 1
    assert world.ended == [LEASE_ID]


def test_a_guest_that_gave_its_channel_up_gets_another_and_no_fresh_enclave() -> None:
    async def scenario(world: World) -> None:
        member = await world.host.launch("vm1", REQUEST)
        other = await world.host.launch("vm1", REQUEST)
        kept = other.channel_fd
        await world.host.rejoin(member)
        assert [channel.closed for channel in world.channels] == [True, False, False]
        assert world.channels[0].status is Status.EXITED, "whoever still waits there is told"
        assert (member.channel_fd, other.channel_fd) == (world.channels[2].fd, kept)
        assert len(world.enclaves[0].channels) == 2

    assert len(run(scenario).enclaves) == 1


def test_an_enclave_that_does_not_start_gives_its_seat_back() -> None:
    async def scenario(world: World) -> None:
        world.start_error = errors.KvmError("creating a VM: permission denied")
        with pytest.raises(errors.KvmError):
            await world.host.launch("vm1", REQUEST)

    assert run(scenario).ended == [LEASE_ID]


@pytest.mark.case("B17")
def test_a_launch_cancelled_while_it_deploys_gives_everything_back() -> None:
    async def scenario(world: World) -> None:
        world.go.clear()
        launch = asyncio.create_task(world.host.launch("vm1", REQUEST))
        await asyncio.sleep(0.05)
        launch.cancel()
        await expect_soon(lambda: world.cancelled is not None and world.cancelled.is_set())
        world.go.set()
        with pytest.raises(asyncio.CancelledError):
            await launch

    world = run(scenario)
    assert world.enclaves == []
    assert world.memories[0].wiped
    assert world.ended == [LEASE_ID]


@pytest.mark.case("B17")
def test_a_launch_cancelled_while_it_starts_gives_everything_back() -> None:
    async def scenario(world: World) -> None:
        world.start_go.clear()
        launch = asyncio.create_task(world.host.launch("vm1", REQUEST))
        await asyncio.sleep(0.05)
        launch.cancel()
        await asyncio.sleep(0.05)
        world.start_go.set()
        with pytest.raises(asyncio.CancelledError):
            await launch

    world = run(scenario)
    assert len(world.enclaves) == 1
    assert world.ended == [LEASE_ID]
