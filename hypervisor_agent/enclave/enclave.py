"""A running enclave: started from a plan, watched through a descriptor, destroyed without a trace."""

from __future__ import annotations

import time
from typing import Final

from cafe_lib.errors import DeadlineError, MalformedError
from hypervisor_agent.abi import EventKind, Status
from hypervisor_agent.enclave.channel import Channel
from hypervisor_agent.enclave.outcome import Outcome, outcome_of, vanished
from hypervisor_agent.enclave.process import EnclaveProcess, SparePool
from hypervisor_agent.plan import EnclavePlan

_START_MARGIN_SECONDS: Final = 10.0
"""On top of the deadline that the VMM itself enforces on the constructors: for starting the process."""


class Enclave:
    """Owns process, memory and channel. A blocking interface, plus :meth:`fileno` for an event loop.

    The process is killed by the kernel if the agent dies, so nothing outlives it.
    """

    def __init__(self, plan: EnclavePlan, channel: Channel, process: EnclaveProcess) -> None:
        self._plan = plan
        self._process = process
        self.channel: Final = channel
        self.outcome: Outcome | None = None
        """How it ended; None while it runs."""

    @classmethod
    def start(cls, plan: EnclavePlan, pool: SparePool) -> Enclave:
        """Run ``plan`` and wait until the enclave takes calls; on an error everything is wiped and closed.

        :raises EnclaveError: the constructors faulted, gave up or took too long.
        :raises HostError: this host cannot run it.
        """
        channel = process = None
        try:
            channel = Channel(plan.config.slot_count, plan.config.slot_bytes)
            process = pool.take()
            process.configure(plan.config.pack(), plan.memory.fd, channel.fd)
        except BaseException:
            if channel is not None:
                channel.close()
            if process is not None:
                process.end()
                process.close()
            plan.memory.wipe()
            raise
        enclave = cls(plan, channel, process)
        enclave._wait_ready()
        pool.refill()
        return enclave

    def _wait_ready(self) -> None:
        seconds = self._plan.config.deadline_ns / 1e9 + _START_MARGIN_SECONDS
        try:
            event = self._process.receive(seconds)
        except (TimeoutError, MalformedError):
            self.destroy()
            raise DeadlineError("the enclave did not become ready") from None
        if event is None or event.kind is not EventKind.READY:
            outcome = vanished() if event is None else outcome_of(event, self._plan)
            self.destroy(outcome.status)
            raise outcome.error

    @property
    def pid(self) -> int:
        """The process's number; 0 once it was destroyed."""
        return self._process.pid

    def fileno(self) -> int:
        """Return a descriptor that is readable when the enclave has ended; then call :meth:`wait`."""
        return self._process.fileno()

    def wait(self, timeout_seconds: float | None = None) -> Outcome | None:
        """Return how the enclave ended, or None if it has not in ``timeout_seconds`` (None: for ever).

        Waiting calls are told by then. :meth:`destroy` is still to be called.
        """
        until = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while self.outcome is None:
            left = None if until is None else max(0.0, until - time.monotonic())
            try:
                event = self._process.receive(left)
            except TimeoutError:
                return None
            except MalformedError:
                event = None
            if event is None or event.kind is not EventKind.READY:
                self._finish(vanished() if event is None else outcome_of(event, self._plan))
        return self.outcome

    def _finish(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self._process.end()
        self.channel.mark_dead(outcome.status)

    def destroy(self, status: Status = Status.EXITED) -> None:
        """End it whatever it does, tell waiting calls ``status``, wipe, close; idempotent."""
        self._process.end()
        self._process.close()
        self.channel.mark_dead(status)
        self._plan.memory.wipe()
        self.channel.close()
