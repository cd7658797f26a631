"""Lets one gdb at a time stop, look at and run the vCPUs of an emulated enclave.

Every vCPU tells :class:`Debugger` of each instruction before it runs; to stop a vCPU is not to return from
that. The thread that talks to gdb does the rest. Only an enclave whose manifest says that it is a debug build
ever gets one: the agent starts no other in an emulator with ``--gdb``.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Final, Protocol

from hypervisor_agent.enclave.gdbstub import (
    SIGABRT,
    SIGFPE,
    SIGILL,
    SIGSEGV,
    SIGTRAP,
    Answer,
    GdbSession,
    Stop,
    Then,
)

_HALT_SECONDS: Final = 0.5
"""How long running vCPUs have to come to their next instruction; one that sleeps stands anyway."""
_SIGNALS: Final = {
    0: SIGFPE,
    1: SIGTRAP,
    3: SIGTRAP,
    6: SIGILL,
    13: SIGSEGV,
    14: SIGSEGV,
    16: SIGFPE,
    19: SIGFPE,
}
_PIPE_BYTES: Final = 4096


class DebuggedCpu(Protocol):
    """What the debugger needs of a vCPU; called while it stands, from the debugger's thread."""

    def read_register(self, name: str) -> int | None:
        """Return a register by gdb's name, None if there is no such."""
        ...

    def write_register(self, name: str, value: int) -> bool:
        """Change a register; false if that cannot be done."""
        ...

    def read_memory(self, address: int, size: int) -> bytes:
        """Return what is mapped from ``address`` on, at most ``size`` bytes."""
        ...

    def write_memory(self, address: int, data: bytes) -> bool:
        """Change memory whatever its rights; false if it is not mapped."""
        ...


class Debugger:
    """The machine of gdb's session, and the gate every vCPU passes before each instruction."""

    def __init__(self, image_base: int, cpus: int, end: Callable[[], object], *, wait: bool = False) -> None:
        """``end`` ends the enclave; with ``wait`` it stands at :meth:`on_ready` until a gdb has come."""
        self._base = image_base
        self._cpus: list[DebuggedCpu | None] = [None] * cpus
        self._end = end
        self._wait = wait
        self._changed = threading.Condition()
        self._halted = False
        self._standing: set[int] = set()
        self._stepping: int | None = None
        self._alone = False
        self._attention = False
        self._session: GdbSession | None = None
        self._breakpoints: frozenset[int] = frozenset()
        self._stop = Stop(SIGTRAP)
        self._news, self._tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    # -------------------------------------------------------------- for the vCPUs' threads

    @property
    def halted(self) -> bool:
        """True while the enclave stands: its deadline does not run."""
        return self._halted

    def add_cpu(self, index: int, cpu: DebuggedCpu) -> None:
        """Name a vCPU, before its first instruction."""
        self._cpus[index] = cpu

    def on_instruction(self, index: int, rip: int) -> None:
        """Return when vCPU ``index`` may run the instruction at ``rip``."""
        if not self._attention and rip not in self._breakpoints:
            return
        with self._changed:
            if not self._halted and self._session is not None:
                if rip in self._breakpoints:
                    self._halt(Stop(SIGTRAP, index + 1, breakpoint=True))
                elif self._stepping == index:
                    self._halt(Stop(SIGTRAP, index + 1))
            self._stand(index)

    def on_fault(self, index: int, vector: int) -> None:
        """Show a fault to gdb; when it lets the enclave run, the fault ends it."""
        with self._changed:
            if self._session is not None:
                if not self._halted:
                    self._halt(Stop(_SIGNALS.get(vector, SIGABRT), index + 1))
                self._stand(index)

    def on_ready(self) -> None:
        """Stand until gdb has come, if that was asked for; called once, before the first call."""
        with self._changed:
            if self._wait and self._session is None:
                self._halted = self._attention = True

    def _stand(self, index: int) -> None:
        self._standing.add(index)
        self._changed.notify_all()
        while self._halted or (self._alone and self._stepping != index):
            self._changed.wait()
        self._standing.discard(index)

    def _halt(self, stop: Stop) -> None:
        self._halted = self._attention = True
        self._stepping, self._alone, self._stop = None, False, stop
        with contextlib.suppress(BlockingIOError):
            os.write(self._tell, b"!")

    # -------------------------------------------------------------- gdb's machine

    @property
    def image_base(self) -> int:
        """See the port."""
        return self._base

    @property
    def threads(self) -> int:
        """See the port."""
        return len(self._cpus)

    def read_register(self, thread: int, name: str) -> int | None:
        """See the port."""
        cpu = self._cpus[thread - 1]
        return None if cpu is None else cpu.read_register(name)

    def write_register(self, thread: int, name: str, value: int) -> bool:
        """See the port."""
        cpu = self._cpus[thread - 1]
        return cpu is not None and cpu.write_register(name, value)

    def read_memory(self, address: int, size: int) -> bytes:
        """See the port."""
        cpu = self._cpus[self._stop.thread - 1]
        return b"" if cpu is None else cpu.read_memory(address, size)

    def write_memory(self, address: int, data: bytes) -> bool:
        """See the port."""
        cpu = self._cpus[self._stop.thread - 1]
        return cpu is not None and cpu.write_memory(address, data)

    # -------------------------------------------------------------- for the thread that talks to gdb

    @property
    def news(self) -> int:
        """A descriptor that is readable when a vCPU has stopped the enclave; then call :meth:`take_stop`."""
        return self._news

    def attach(self) -> GdbSession:
        """Stop the enclave for a gdb that has connected."""
        self.interrupt(SIGTRAP)
        with contextlib.suppress(BlockingIOError):
            os.read(self._news, _PIPE_BYTES)
        with self._changed:
            self._session = GdbSession(self, self._stop)
            return self._session

    def take_stop(self) -> Stop:
        """Return why the enclave stands, once every vCPU that runs does."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._news, _PIPE_BYTES)
        with self._changed:
            self._changed.wait_for(self._all_stand, _HALT_SECONDS)
            return self._stop

    def interrupt(self, signal: int) -> Stop | None:
        """Make every vCPU stand; None if they do already, or are about to."""
        with self._changed:
            if self._halted and self._session is not None:
                return None
            self._halted = self._attention = True
            self._stepping, self._alone = None, False
            self._changed.wait_for(self._all_stand, _HALT_SECONDS)
            self._stop = Stop(signal, min(self._standing, default=0) + 1)
            return self._stop

    def _all_stand(self) -> bool:
        return len(self._standing) == len(self._cpus)

    def answer(self, session: GdbSession, packet: bytes) -> Answer | None:
        """Answer a packet and do what it asks; None while the enclave runs: gdb asks nothing then."""
        if not self._halted:
            return None
        answer = session.answer(packet)
        self._breakpoints = session.breakpoints
        if answer.then is Then.RESUME:
            self._resume(answer.step, others=answer.others)
        elif answer.then is Then.KILL:
            self._end()
        return answer

    def _resume(self, step: int | None, *, others: bool) -> None:
        with self._changed:
            self._stepping = None if step is None else step - 1
            self._alone = step is not None and not others
            self._attention = step is not None
            self._halted = False
            self._changed.notify_all()

    def detach(self) -> None:
        """Forget gdb and run on; also when the enclave has ended, so that nobody waits."""
        with self._changed:
            self._session, self._breakpoints, self._wait = None, frozenset(), False
            self._stepping, self._alone, self._halted, self._attention = None, False, False, False
            self._changed.notify_all()
