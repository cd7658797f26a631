"""One running enclave under one lease for the processes of one VM; replaced after a crash within a budget."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import structlog

from cafe_lib.errors import CafeError, EnclaveError, ExitedError, KvmError, LicenceError, LimitError
from hypervisor_agent.abi import Status
from hypervisor_agent.blocking import in_thread
from hypervisor_agent.crash import CrashReport, failure_of, report_of
from hypervisor_agent.enclave.channel import Channel
from hypervisor_agent.enclave.enclave import Enclave
from hypervisor_agent.enclave.outcome import Outcome
from hypervisor_agent.graves import Graves
from hypervisor_agent.leases import Clock, RestartBudget
from hypervisor_agent.plan import EnclavePlan
from hypervisor_agent.release import Release
from hypervisor_agent.standby import Standby
from hypervisor_agent.starter import Starter, has_news
from hypervisor_agent.steps import Steps

LAST_WORD_SECONDS = 0.05
"""A VMM marks the channels dead before it reports: a guest may be here sooner than the report is."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Upkeep:
    """How enclaves that crash are replaced."""

    restarts: int = 5
    """Fresh enclaves one lease may use within the window."""
    window_seconds: float = 60.0
    standby: bool = True
    """Keep a spare enclave, started, for each one that runs."""


class Member:
    """One guest process's part in a tenancy: its channel, and the region it has in the enclave that runs."""

    def __init__(self, tenancy: EnclaveTenancy) -> None:
        self.tenancy = tenancy
        self.channel: Channel | None = None
        self.region: int | None = None
        """None once that enclave has ended; the channel stays."""

    @property
    def secret_binary_id(self) -> bytes:
        """Which release runs."""
        return self.tenancy.secret_binary_id

    @property
    def stopped(self) -> bool:
        """True once the lease has ended: a fresh enclave needs a fresh launch."""
        return self.tenancy.stopped

    @property
    def channel_fd(self) -> int:
        """The attached channel; raises what ended the enclave if there is none."""
        return self._attached().fd

    @property
    def region_bytes(self) -> int:
        """The size of the attached channel; raises what ended the enclave if there is none."""
        return self._attached().size

    def _attached(self) -> Channel:
        if self.channel is None or self.region is None:
            raise self.tenancy.failure
        return self.channel


class EnclaveTenancy:
    """Lives on the event loop; blocking work goes to threads, one at a time."""

    def __init__(self, release: Release, starter: Starter, upkeep: Upkeep, steps: Steps) -> None:
        self.release = release
        self.failure: CafeError = ExitedError("the enclave has ended")
        """What ended the last enclave."""
        self._starter = starter
        self._budget = RestartBudget(upkeep.restarts, upkeep.window_seconds)
        self._steps = steps
        self._standby = Standby(release, starter, self._tell_standby) if upkeep.standby else None
        self._lock = asyncio.Lock()
        self._graves = Graves()
        self._enclave: Enclave | None = None
        self._attached: set[Member] = set()
        self._stopped: Status | None = None
        self._collecting: set[asyncio.Task[None]] = set()

    @property
    def secret_binary_id(self) -> bytes:
        """Which release runs."""
        return self.release.order.secret_binary_id

    @property
    def stopped(self) -> bool:
        """True once :meth:`stop` was called: nothing is started any more."""
        return self._stopped is not None

    async def start(self, plan: EnclavePlan) -> None:
        """Run the first enclave; raises EnclaveError, HostError, or LicenceError when stopped meanwhile."""
        started = time.perf_counter()
        async with self._lock:
            await self._start(plan)
        self._steps.step("loading", 5, (time.perf_counter() - started) * 1000)

    async def admit(self, member: Member, clock: Clock) -> None:
        """Attach a member's channel to the running enclave, and to a fresh one if the last has ended.

        A member that is attached to a running enclave has given its channel up: it gets another one. So many
        enclaves may end under it as the restart budget allows.

        :raises LimitError: every region is taken.
        :raises LicenceError: the lease has ended.
        :raises CafeError: what ended the last enclave, once the restart budget is used up, or why no fresh
            one starts.
        """
        async with self._lock:
            await self._look(LAST_WORD_SECONDS if member.region is not None else 0)
            if member.region is not None:
                await self._give_up(member)
            await self._run(clock)
            while not await self._attach(member):
                await self._run(clock)
        if self._standby is not None:
            self._standby.prepare()

    async def dismiss(self, member: Member) -> None:
        """Take a member's region and channel away; its waiting calls are told that the enclave has gone."""
        async with self._lock:
            await self._give_up(member)

    async def stop(self, status: Status) -> None:
        """Destroy the enclave and its standby and start no other; waiting calls are told ``status``."""
        if self._stopped is None:
            self._stopped = status
        both = [self._stop()] if self._standby is None else [self._stop(), self._standby.close()]
        await asyncio.gather(*both)

    async def _stop(self) -> None:
        async with self._lock:
            await self._destroy(self._stopped or Status.EXITED)
        await self._graves.settled()

    def _refuse_when_stopped(self) -> None:
        if self._stopped is not None:
            raise LicenceError("the lease has ended")

    # -------------------------------------------------------------- starting; all of it under the lock

    async def _run(self, clock: Clock) -> None:
        """Have an enclave that runs: the present one, the standby, or one made anew from the ciphertext."""
        self._refuse_when_stopped()
        if self._enclave is not None:
            return
        if not self._budget.take(clock()):
            raise self.failure
        spare = None if self._standby is None else await self._standby.take()
        if spare is not None:
            self._install(spare)
        else:
            self._refuse_when_stopped()
            await self._start(await in_thread(self.release.load, lambda unused: unused.memory.wipe()))
        self._steps.event("enclave", state="replaced", vm=self.release.order.vm_id)

    async def _start(self, plan: EnclavePlan) -> None:
        if self._stopped is not None:
            await in_thread(plan.memory.wipe, lambda _: None)
        self._refuse_when_stopped()
        self._install(await in_thread(lambda: self._starter.start(plan), lambda unused: unused.destroy()))
        if self._stopped is not None:
            await self._destroy(self._stopped)
        self._refuse_when_stopped()

    def _install(self, enclave: Enclave) -> None:
        self._enclave = enclave
        self._watch(enclave)

    def _watch(self, enclave: Enclave) -> None:
        asyncio.get_running_loop().add_reader(enclave.fileno(), self._on_news, enclave)

    # -------------------------------------------------------------- channels; all of it under the lock

    async def _attach(self, member: Member) -> bool:
        """Attach a member; False when the enclave has ended meanwhile."""
        enclave = self._enclave
        if enclave is None:
            return False
        if member.channel is None:
            member.channel = self._starter.channel(self.release.manifest)
        channel = member.channel
        asyncio.get_running_loop().remove_reader(enclave.fileno())  # the answer is no end
        try:
            member.region = await in_thread(lambda: enclave.attach(channel), partial(_detach, enclave))
        except LimitError as error:
            hint = "The enclave has no place for another process; end one."
            raise LimitError(error.detail, hint=hint) from error
        except EnclaveError:
            await self._look(LAST_WORD_SECONDS)
            if self._enclave is enclave:
                raise
            return False
        finally:
            if self._enclave is enclave:
                self._watch(enclave)
        self._attached.add(member)
        self._refuse_when_stopped()
        return True

    async def _give_up(self, member: Member) -> None:
        """Detach a member if it is attached, and close its channel."""
        enclave, region, channel = self._enclave, member.region, member.channel
        member.region = member.channel = None
        self._attached.discard(member)

        def part() -> None:
            if enclave is not None and region is not None:
                _detach(enclave, region)
            if channel is not None:
                channel.mark_dead(Status.EXITED)
                channel.close()

        await in_thread(part, lambda _: None)

    # -------------------------------------------------------------- ending

    def _on_news(self, enclave: Enclave) -> None:
        """Find out what a VMM has said: as a rule, that its enclave has ended by itself."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(enclave.fileno())
        task = loop.create_task(self._collect(enclave))
        self._collecting.add(task)
        task.add_done_callback(self._collecting.discard)

    async def _collect(self, enclave: Enclave) -> None:
        async with self._lock:
            if self._enclave is enclave:
                await self._look(0)
            if self._enclave is enclave:
                self._watch(enclave)

    async def _look(self, patience_seconds: float) -> None:
        """Take note if the enclave has ended by itself. Its channels are told, and free for the next one."""
        enclave = self._enclave
        if enclave is None or not (patience_seconds or has_news(enclave)):
            return
        outcome = await in_thread(lambda: enclave.wait(patience_seconds), lambda _: None)
        if outcome is not None:
            self._part(enclave)
            report = report_of(outcome, self.release)
            self.failure = failure_of(outcome, report)
            self._graves.bury_later(enclave, outcome.status, partial(self._report, outcome, report))

    def _report(self, outcome: Outcome, report: CrashReport) -> None:
        own = {"detail": outcome.error.detail} if isinstance(outcome.error, KvmError) else {}
        _log.warning("crash", **report.fields(), **own)
        self._steps.event("crash", **report.fields())
        self._tell_ended(outcome.status)

    def _part(self, enclave: Enclave) -> None:
        """Let go of the enclave that runs; its members are attached to none."""
        asyncio.get_running_loop().remove_reader(enclave.fileno())
        self._enclave = None
        for member in self._attached:
            member.region = None
        self._attached.clear()

    async def _destroy(self, status: Status) -> None:
        enclave = self._enclave
        if enclave is None:
            return
        self._part(enclave)
        self._graves.bury(enclave, status)
        await self._graves.settled()
        self._tell_ended(status)

    def _tell_ended(self, status: Status) -> None:
        self._steps.event("enclave", state="ended", vm=self.release.order.vm_id, status=status.name.lower())

    def _tell_standby(self, state: str) -> None:
        self._steps.event("standby", state=state, vm=self.release.order.vm_id)


def _detach(enclave: Enclave, region: int) -> None:
    with suppress(CafeError):  # it ends just now
        enclave.detach(region)
