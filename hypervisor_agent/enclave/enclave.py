"""A running enclave: started from a plan, given channels, watched through a descriptor, destroyed."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from typing import Final

from cafe_lib.errors import DeadlineError, ExitedError, HostError, LimitError, MalformedError
from hypervisor_agent.abi import CommandKind, EventKind, Status, VmmCommand, VmmEvent
from hypervisor_agent.enclave.channel import Channel
from hypervisor_agent.enclave.outcome import Outcome, outcome_of, vanished
from hypervisor_agent.enclave.process import EnclaveProcess, SparePool
from hypervisor_agent.plan import ChannelSize, EnclavePlan

_START_MARGIN_SECONDS: Final = 10.0
"""On top of the deadline that the VMM itself enforces on the constructors: for starting the process."""
_ANSWER_SECONDS: Final = 10.0
"""How long a VMM may take over one command; attaching takes microseconds."""


class Enclave:
    """Owns process and memory, not the channels. A blocking interface, plus :meth:`fileno` for an event loop.

    Any thread may call any method. The process is killed by the kernel if the agent dies, so nothing
    outlives it.
    """

    def __init__(self, plan: EnclavePlan, process: EnclaveProcess) -> None:
        self._plan = plan
        self._process = process
        self.outcome: Outcome | None = None
        """How it ended; None while it runs."""
        self._commands = threading.Lock()  # one command at a time
        self._changed = threading.Condition()  # guards what follows
        self._channels: dict[int, Channel] = {}
        self._asked: Channel | None = None  # what the command under way attaches
        self._answer: VmmEvent | None = None
        self._listening = False  # a thread is waiting for an event, on behalf of all
        self._destroyed = False

    @classmethod
    def start(cls, plan: EnclavePlan, pool: SparePool) -> Enclave:
        """Run ``plan`` and wait until its constructors have run; on an error everything is wiped and closed.

        :raises EnclaveError: the constructors faulted, gave up or took too long.
        :raises HostError: this host cannot run it.
        """
        process = None
        try:
            process = pool.take()
            process.configure(plan.config.pack(), plan.memory.fd)
        except BaseException:
            if process is not None:
                process.end()
                process.close()
            plan.memory.wipe()
            raise
        enclave = cls(plan, process)
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

    @property
    def channel_size(self) -> ChannelSize:
        """What a channel for it is made with."""
        return self._plan.channel_size

    @property
    def _over(self) -> bool:
        return self._destroyed or self.outcome is not None

    def attach(self, channel: Channel) -> int:
        """Let a guest process call through ``channel``, made with :attr:`channel_size`.

        When the enclave ends, by itself or not, the channel is marked dead, unless it was detached before.

        :return: the region's index, for :meth:`detach`.
        :raises LimitError: as many processes use the enclave as it has regions for.
        :raises EnclaveError: it has ended; the reason is in ``outcome``.
        :raises HostError: this host cannot map it.
        """
        with self._commands:
            with self._changed:
                self._refuse_when_over()
                self._asked, self._answer = channel, None
                self._send(VmmCommand(CommandKind.ATTACH), channel.fd)
            self._listen(lambda: self._answer is not None or self._over, _ANSWER_SECONDS)
            with self._changed:
                return self._attached_region()

    def _attached_region(self) -> int:
        answer = self._answer
        if answer is None:
            if not self._over:
                self._finish(vanished())  # a VMM that does not listen is none
            self._refuse_when_over()
        self._answer = None
        if answer is None or answer.status == errno.EBUSY:
            raise LimitError("every channel region of the enclave is taken")
        if answer.status:
            raise HostError(f"attaching a channel: {os.strerror(answer.status)}")
        return answer.vector

    def detach(self, region: int) -> None:
        """Take a channel away; what a call of it that is still under way writes goes nowhere.

        Returns at once: for a moment the enclave still has it, so it must not go to another one unless this
        one has ended. Nothing happens if it has.
        """
        with self._commands, self._changed:
            if self._channels.pop(region, None) is not None and not self._over:
                self._send(VmmCommand(CommandKind.DETACH, region))

    def _refuse_when_over(self) -> None:
        if self._over:
            reason = self.outcome.error.detail if self.outcome else ""
            raise ExitedError(f"the enclave has ended: {reason}" if reason else "the enclave has ended")

    def _send(self, command: VmmCommand, fd: int | None = None) -> None:
        try:
            self._process.command(command, fd)
        except BlockingIOError:
            self._finish(vanished())

    def fileno(self) -> int:
        """Return a descriptor that is readable when the enclave has ended; then call :meth:`wait`.

        It is readable for a moment during :meth:`attach` as well.
        """
        return self._process.fileno()

    def wait(self, timeout_seconds: float | None = None) -> Outcome | None:
        """Return how the enclave ended, or None if it has not in ``timeout_seconds`` (None: for ever).

        Waiting calls are told by then. :meth:`destroy` is still to be called.
        """
        self._listen(lambda: self._over, timeout_seconds)
        return self.outcome

    def _listen(self, done: Callable[[], bool], timeout_seconds: float | None) -> None:
        """Deal with events until ``done`` or the time is up. One thread receives; the others wait for it."""
        until = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        with self._changed:
            while not done():
                left = None if until is None else max(0.0, until - time.monotonic())
                in_time = self._changed.wait(left) if self._listening else self._receive(left)
                if not in_time:
                    return

    def _receive(self, timeout_seconds: float | None) -> bool:
        """Deal with the next event, without the lock while it is awaited; false when the time is up."""
        self._listening = True
        self._changed.release()
        try:
            event = self._process.receive(timeout_seconds)
        except TimeoutError:
            return False
        except MalformedError:
            event = None
        finally:
            self._changed.acquire()
            self._listening = False
            self._changed.notify_all()
        if not self._over:
            self._on_event(event)
        return True

    def _on_event(self, event: VmmEvent | None) -> None:
        if event is None:
            self._finish(vanished())
        elif event.kind is EventKind.ATTACHED:
            self._on_attached(event)
        elif event.kind is not EventKind.READY:
            self._finish(outcome_of(event, self._plan))

    def _on_attached(self, event: VmmEvent) -> None:
        free = event.vector < self._plan.config.region_count and event.vector not in self._channels
        if self._asked is None or (event.status == 0 and not free):
            self._finish(vanished())  # no VMM of ours says this
            return
        if event.status == 0:
            self._channels[event.vector] = self._asked
        self._answer, self._asked = event, None

    def _finish(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self._end(outcome.status)

    def _end(self, status: Status) -> None:
        """End the process and tell its channels, once: they may belong to another enclave afterwards."""
        self._process.end()
        told = [*self._channels.values(), self._asked]
        self._channels, self._asked = {}, None
        for channel in told:
            if channel is not None:
                channel.mark_dead(status)
        self._changed.notify_all()

    def destroy(self, status: Status = Status.EXITED) -> None:
        """End it whatever it does, tell waiting calls ``status``, wipe, close; idempotent."""
        with self._changed:
            self._destroyed = True
            self._end(status)
            self._changed.wait_for(lambda: not self._listening)  # it sees that the process has gone
            self._process.close()
        self._plan.memory.wipe()
