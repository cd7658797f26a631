"""A host whose enclaves only pretend to run; they assert what may not happen to them."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from io import StringIO
from types import SimpleNamespace

from agent_sbs import HOST_ID, LEASE_ID

from cafe_lib import errors
from cafe_lib.wire.messages import Revocation
from hypervisor_agent import standby
from hypervisor_agent.abi import Status
from hypervisor_agent.enclave.outcome import Outcome
from hypervisor_agent.guests.messages import LaunchRequest
from hypervisor_agent.host import AgentHost
from hypervisor_agent.leases import Lease
from hypervisor_agent.release import Deployment, Order, Release
from hypervisor_agent.steps import Steps
from hypervisor_agent.tenancy import Upkeep

REQUEST = LaunchRequest(1, b"r" * 32, b"i" * 32)
OFFSET = 0x1234


class FakeChannel:
    """A real memfd that nobody uses; says what its guest would see."""

    size = 8192

    def __init__(self) -> None:
        self.fd = os.memfd_create("channel")
        os.ftruncate(self.fd, self.size)
        self.enclave: FakeEnclave | None = None
        self.status: Status | None = None
        """Why it is dead; None while it lives."""
        self.closed = False

    def mark_dead(self, status: Status) -> None:
        if not self.closed and self.status is None:
            self.status = status

    def close(self) -> None:
        assert self.enclave is None, "closed under a running enclave"
        assert not self.closed
        self.closed = True
        os.close(self.fd)


class FakeMemory:
    fd = -1

    def __init__(self) -> None:
        self.wiped = False

    def wipe(self) -> None:
        self.wiped = True


class FakeEnclave:
    """Ends when it is told to; its socket becomes readable then, as a VMM's does."""

    def __init__(self, memory: FakeMemory, regions: int = 4, pause: float = 0) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._memory, self._pause = memory, pause
        self._lock = threading.RLock()
        self._free = list(range(regions))
        self.channels: dict[int, FakeChannel] = {}
        self.outcome: Outcome | None = None
        self.reported = True
        """Whether the VMM has said that it ended."""
        self.destroyed: Status | None = None

    @property
    def alive(self) -> bool:
        return self.destroyed is None and self.outcome is None

    def fileno(self) -> int:
        return self._ours.fileno()

    def fault(self, *, report: bool = True) -> None:
        """Fault as a VMM does: the channels first, the report afterwards."""
        with self._lock:
            if not self.alive:
                return
            self.outcome = Outcome(
                Status.FAULT, errors.FaultError("#UD, write to heap + 0x10"), "#UD", OFFSET
            )
            self._tell(Status.FAULT)
            self.reported = report
            if report:
                self._theirs.close()

    def report(self) -> None:
        with self._lock:
            self.reported = True
            self._theirs.close()

    def _tell(self, status: Status) -> None:
        for channel in self.channels.values():
            channel.mark_dead(status)

    def wait(self, timeout_seconds: float) -> Outcome | None:
        end = time.monotonic() + timeout_seconds
        while not (self.outcome and self.reported) and time.monotonic() < end:
            time.sleep(0.001)
        with self._lock:
            if self.outcome is None or not self.reported:
                return None
            self._forget()
            return self.outcome

    def _forget(self) -> None:
        for channel in self.channels.values():
            channel.enclave = None
        self.channels.clear()

    def attach(self, channel: FakeChannel) -> int:
        time.sleep(self._pause)
        with self._lock:
            if not self.alive:
                self.reported = True
                raise errors.ExitedError("the enclave has ended")
            assert not channel.closed
            assert channel.enclave is None, "attached twice"
            if not self._free:
                raise errors.LimitError("every region is taken")
            region = self._free.pop()
            self.channels[region] = channel
            channel.enclave, channel.status = self, None
            return region

    def detach(self, region: int) -> None:
        with self._lock:
            channel = self.channels.pop(region, None)
            if channel is not None:
                channel.enclave = None
                self._free.append(region)

    def destroy(self, status: Status = Status.EXITED) -> None:
        with self._lock:
            if self.destroyed is None:
                self.destroyed = status
            self._tell(status)
            self._forget()
            self._ours.close()
            self._theirs.close()
            self._memory.wipe()


class FakeRelease(Release):
    __slots__ = ("world",)

    def load(self) -> SimpleNamespace:  # type: ignore[override] # stands in for a plan
        return self.world.plan()  # type: ignore[attr-defined, no-any-return] # set by the world


@dataclass
class World:
    """A host with its fake deployer, starter and clock."""

    now: float = 1000.0
    lease_seconds: float = 30
    ended: list[bytes] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    enclaves: list[FakeEnclave] = field(default_factory=list)
    channels: list[FakeChannel] = field(default_factory=list)
    memories: list[FakeMemory] = field(default_factory=list)
    renewals: int = 0
    renewal_fails: bool = False
    ended_at_renewal: tuple[bytes, ...] = ()
    strays: tuple[tuple[bytes, int], ...] = ()
    deploy_error: errors.CafeError | None = None
    start_error: errors.CafeError | None = None
    go: threading.Event = field(default_factory=threading.Event)
    start_go: threading.Event = field(default_factory=threading.Event)
    end_go: threading.Event = field(default_factory=threading.Event)
    restarts: int = 2
    standby: bool = False
    regions: int = 4
    pause: Callable[[], float] = lambda: 0
    """How long a blocking step takes, in seconds."""
    cancelled: threading.Event | None = None
    output: StringIO = field(default_factory=StringIO)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.go.set()
        self.start_go.set()
        self.end_go.set()
        upkeep = Upkeep(self.restarts, 60, self.standby)
        self.host = AgentHost(self, self, upkeep, Steps(self.output), lambda: self.now)  # type: ignore[arg-type] # fakes

    @property
    def running(self) -> list[FakeEnclave]:
        return [enclave for enclave in self.enclaves if enclave.destroyed is None]

    def plan(self) -> SimpleNamespace:
        memory = FakeMemory()
        self.memories.append(memory)
        return SimpleNamespace(memory=memory)

    def deploy(self, order: Order, cancelled: threading.Event) -> Deployment:
        self.cancelled = cancelled
        self.go.wait(5)
        time.sleep(self.pause())
        if self.deploy_error is not None:
            raise self.deploy_error
        with self._counting:
            self.orders.append(order)
            number = len(self.orders)
        lease_id = LEASE_ID if number == 1 else number.to_bytes(16, "big")
        lease = Lease(lease_id, self.now, self.lease_seconds)
        release = FakeRelease(order, "p/app@1", None, None, (), lease)  # type: ignore[arg-type] # unused
        object.__setattr__(release, "world", self)
        return Deployment(release, self.plan())  # type: ignore[arg-type] # a fake plan

    def renew(self) -> tuple[float, tuple[tuple[bytes, int], ...], tuple[bytes, ...]]:
        self.renewals += 1
        if self.renewal_fails:
            raise errors.TransportError("down")
        if self.ended_at_renewal:
            return self.now, (), self.ended_at_renewal
        return self.now, ((LEASE_ID, 30), *self.strays), ()

    def end_lease(self, lease_id: bytes) -> None:
        self.end_go.wait(5)
        self.ended.append(lease_id)

    def start(self, plan: SimpleNamespace) -> FakeEnclave:
        self.start_go.wait(5)
        time.sleep(self.pause())
        if self.start_error is not None:
            plan.memory.wipe()
            raise self.start_error
        self.enclaves.append(FakeEnclave(plan.memory, self.regions, self.pause()))
        return self.enclaves[-1]

    def channel(self, _manifest: object) -> FakeChannel:
        self.channels.append(FakeChannel())
        return self.channels[-1]

    def revoke(
        self, kind: str = "licence", leases: tuple[bytes, ...] = (LEASE_ID,), release: bytes = b""
    ) -> None:
        self.host.revoke(Revocation(1, HOST_ID, kind, leases, release))


def run(scenario: Callable[[World], Coroutine[None, None, None]], **settings: float) -> World:
    """Run a scenario against a fresh world, end the host, and see that nothing is left."""
    world = World(**settings)  # type: ignore[arg-type] # by name

    async def main() -> None:
        keeper = asyncio.create_task(world.host.keep_leases())
        try:
            await asyncio.wait_for(scenario(world), 30)
        finally:
            keeper.cancel()
            await world.host.close()

    asyncio.run(main())
    expect_nothing_left(world)
    return world


def expect_nothing_left(world: World) -> None:
    assert all(enclave.destroyed is not None for enclave in world.enclaves)
    assert all(channel.closed for channel in world.channels)
    assert all(memory.wiped for memory in world.memories)
    granted = [LEASE_ID, *(number.to_bytes(16, "big") for number in range(2, len(world.orders) + 1))]
    given_back = Counter(world.ended)
    most = 1 + world.renewals  # a lease that ends during a renewal may be taken for a stray: harmless
    for lease in granted[: len(world.orders)]:
        assert 1 <= given_back[lease] <= most, f"lease {lease.hex()} given back {given_back[lease]} times"


def without_pause(monkeypatch: object) -> None:
    """Have standbys made at once."""
    monkeypatch.setattr(standby, "PAUSE_SECONDS", 0)  # type: ignore[attr-defined] # pytest's


async def expect_soon(condition: Callable[[], bool]) -> None:
    for _ in range(300):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen within three seconds")
