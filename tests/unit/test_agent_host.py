"""Leases, revocation, replacement and the end of guests, with enclaves that only pretend to run."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from agent_sbs import HOST_ID, LEASE_ID

from cafe_lib import errors
from cafe_lib.wire.messages import Revocation
from hypervisor_agent import host as host_module
from hypervisor_agent.abi import Status
from hypervisor_agent.enclave.outcome import Outcome
from hypervisor_agent.guests.messages import LaunchRequest
from hypervisor_agent.host import AgentHost
from hypervisor_agent.leases import Lease, RestartBudget
from hypervisor_agent.release import Deployment, Order, Release
from hypervisor_agent.steps import Steps

REQUEST = LaunchRequest(1, b"r" * 32, b"i" * 32)


class FakeEnclave:
    """Ends when it is told to; its socket becomes readable then, as a VMM's does."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self.channel = SimpleNamespace(fd=99, size=8192)
        self.outcome: Outcome | None = None
        self.destroyed: Status | None = None

    def fileno(self) -> int:
        return self._ours.fileno()

    def fault(self) -> None:
        self.outcome = Outcome(Status.FAULT, errors.FaultError("#UD at image offset 0x1000"))
        self._theirs.close()

    def wait(self, _timeout_seconds: float) -> Outcome | None:
        return self.outcome

    def destroy(self, status: Status = Status.EXITED) -> None:
        if self.destroyed is None:
            self.destroyed = status
        self._ours.close()
        self._theirs.close()


class FakeMemory:
    fd = -1

    def __init__(self) -> None:
        self.wiped = False

    def wipe(self) -> None:
        self.wiped = True


class FakeRelease(Release):
    __slots__ = ()

    def load(self) -> SimpleNamespace:  # type: ignore[override] # stands in for a plan
        return SimpleNamespace(memory=FakeMemory())


@dataclass
class World:
    """A host with its fake deployer, starter and clock."""

    now: float = 1000.0
    lease_seconds: float = 30
    ended: list[bytes] = field(default_factory=list)
    enclaves: list[FakeEnclave] = field(default_factory=list)
    memories: list[FakeMemory] = field(default_factory=list)
    renewals: int = 0
    renewal_fails: bool = False
    ended_at_renewal: tuple[bytes, ...] = ()
    strays: tuple[tuple[bytes, int], ...] = ()
    start_error: errors.CafeError | None = None
    go: threading.Event = field(default_factory=threading.Event)
    start_go: threading.Event = field(default_factory=threading.Event)
    restarts: int = 2
    cancelled: threading.Event | None = None

    def __post_init__(self) -> None:
        self.go.set()
        self.start_go.set()
        self.host = AgentHost(self, self, lambda: RestartBudget(self.restarts, 60), Steps(), lambda: self.now)

    def deploy(self, order: Order, cancelled: threading.Event) -> Deployment:
        self.cancelled = cancelled
        self.go.wait(5)
        memory = FakeMemory()
        self.memories.append(memory)
        lease_id = LEASE_ID if len(self.memories) == 1 else len(self.memories).to_bytes(16, "big")
        lease = Lease(lease_id, self.now, self.lease_seconds)
        release = FakeRelease(order, "p/app@1", None, None, (), lease)  # type: ignore[arg-type] # unused
        return Deployment(release, SimpleNamespace(memory=memory))  # type: ignore[arg-type] # a fake plan

    def renew(self) -> tuple[float, tuple[tuple[bytes, int], ...], tuple[bytes, ...]]:
        self.renewals += 1
        if self.renewal_fails:
            raise errors.TransportError("down")
        if self.ended_at_renewal:
            return self.now, (), self.ended_at_renewal
        return self.now, ((LEASE_ID, 30), *self.strays), ()

    def end_lease(self, lease_id: bytes) -> None:
        self.ended.append(lease_id)

    def start(self, _plan: object) -> FakeEnclave:
        self.start_go.wait(5)
        if self.start_error is not None:
            raise self.start_error
        self.enclaves.append(FakeEnclave())
        return self.enclaves[-1]

    def revoke(
        self, kind: str = "licence", leases: tuple[bytes, ...] = (LEASE_ID,), release: bytes = b""
    ) -> None:
        self.host.revoke(Revocation(1, HOST_ID, kind, leases, release))


def run(scenario: Callable[[World], Coroutine[None, None, None]], **settings: float) -> World:
    world = World(**settings)  # type: ignore[arg-type] # by name

    async def main() -> None:
        keeper = asyncio.create_task(world.host.keep_leases())
        try:
            await asyncio.wait_for(scenario(world), 10)
        finally:
            keeper.cancel()
            await world.host.close()

    asyncio.run(main())
    assert all(enclave.destroyed is not None for enclave in world.enclaves)
    return world


async def expect_soon(condition: Callable[[], bool]) -> None:
    for _ in range(300):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen within three seconds")


def test_a_guest_that_ends_gives_its_seat_back_once() -> None:
    async def scenario(world: World) -> None:
        tenancy = await world.host.launch("vm1", REQUEST)
        assert (tenancy.channel_fd, tenancy.region_bytes, tenancy.stopped) == (99, 8192, False)
        await world.host.end(tenancy)
        await world.host.end(tenancy)

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
        tenancy = await world.host.launch("vm1", REQUEST)
        world.revoke(kind, leases, release)
        await expect_soon(lambda: world.enclaves[0].destroyed is not None)
        assert tenancy.stopped
        await expect_soon(lambda: world.ended == [LEASE_ID])
        with pytest.raises(errors.LicenceError):
            await world.host.replace(tenancy)
        await world.host.end(tenancy)

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
    assert (world.enclaves, world.ended, world.memories[0].wiped) == ([], [LEASE_ID], True)


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
        tenancy = await world.host.launch("vm1", REQUEST)
        for _ in range(9):
            world.now += 3
            await asyncio.sleep(0.05)
        assert world.enclaves[0].destroyed is None
        world.now += 3
        await expect_soon(lambda: world.enclaves[0].destroyed is not None)
        assert tenancy.stopped

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
        launch = asyncio.create_task(world.host.launch("vm1", REQUEST))
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
        tenancy = await world.host.launch("vm1", REQUEST)
        ending = asyncio.create_task(world.host.end(tenancy))
        await asyncio.sleep(0)
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        await expect_soon(lambda: world.ended == [LEASE_ID])

    run(scenario)


@pytest.mark.case("B16")
def test_a_fault_is_replaced_under_the_same_lease_within_the_budget() -> None:
    async def scenario(world: World) -> None:
        tenancy = await world.host.launch("vm1", REQUEST)
        for _ in range(2):
            world.enclaves[-1].fault()
            await expect_soon(lambda: world.enclaves[-1].destroyed is not None)
            with pytest.raises(errors.FaultError):
                assert tenancy.channel_fd
            await world.host.replace(tenancy)
            assert tenancy.channel_fd == 99
        world.enclaves[-1].fault()
        with pytest.raises(errors.FaultError):
            await world.host.replace(tenancy)
        world.now += 61
        await world.host.replace(tenancy)

    world = run(scenario)
    assert len(world.enclaves) == 4
    assert world.ended == [LEASE_ID]


def test_a_guest_that_asks_while_its_enclave_runs_gets_a_fresh_one() -> None:
    async def scenario(world: World) -> None:
        tenancy = await world.host.launch("vm1", REQUEST)
        await world.host.replace(tenancy)
        assert [enclave.destroyed for enclave in world.enclaves] == [Status.EXITED, None]

    run(scenario)


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
