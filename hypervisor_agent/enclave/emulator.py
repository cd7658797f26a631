"""Runs one enclave under Unicorn where there is no KVM: the VMM's protocol on descriptor 3, the same memory.

Started as ``python -I -m hypervisor_agent.enclave.emulator``. Slower than KVM, without AVX, and its atomic
instructions are not atomic towards the guest, which the channel does not ask for: each word has one writer.
Of all vCPUs only the first is run, which serves whatever is asked: one call at a time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Sequence
from typing import Final

from cafe_lib.errors import CafeError, HostError, MalformedError
from hypervisor_agent import abi
from hypervisor_agent.abi import CommandKind, EventKind, Exit, Status, VmmConfig, VmmEvent
from hypervisor_agent.enclave.debugged import start_debugger
from hypervisor_agent.enclave.emulated import EmulatedCpu, Fault
from hypervisor_agent.enclave.futex import confine_process, futex_wait_any
from hypervisor_agent.enclave.gdbaddress import Gdb, parse_arguments
from hypervisor_agent.enclave.regions import Regions, map_memory
from hypervisor_agent.enclave.walk import user_mappings

_ISA_V2: Final = 2  # enum cafe_isa: the most that Unicorn emulates
_STEP_ISOLATE: Final = 1  # enum vmm_step of vmm.h
_STEP_RECEIVE: Final = 5
_STEP_CONFIG: Final = 6
_STEP_CPUID: Final = 10
_TICKS_PER_DEADLINE: Final = 8
_MAX_TICK_NS: Final = 250_000_000


class Emulator:
    """One enclave from its configuration to its end; the outcome is the first thing that ends it."""

    def __init__(
        self, connection: socket.socket, config: VmmConfig, memory_fd: int, gdb: Gdb | None = None
    ) -> None:
        self._socket = connection
        self._config = config
        self._memory = map_memory(memory_fd, config.memory_bytes)
        self._regions = Regions(config, self._memory)
        self._debugger = None
        if gdb is not None:
            self._debugger = start_debugger(gdb, config, self._memory.view, self._kill)
        self._cpu = EmulatedCpu(self, self._debugger)
        self._awake = threading.Event()
        self._ready = False
        self._end: VmmEvent | None = None

    def run(self) -> None:
        """Run to the end and report it."""
        for part in user_mappings(self._memory.view, self._config.cr3):
            self._cpu.map(
                part.address,
                part.size,
                self._host_address(part.physical, part.size),
                writable=part.writable,
                executable=part.executable,
            )
        self._awake.set()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        self._cpu.run(self._config)
        end = self._end or VmmEvent(EventKind.FAULT, abi.VECTOR_UNKNOWN, status=Status.FAULT)
        self._regions.mark_dead(Status.HOST if end.kind is EventKind.HOST else end.status)
        self._say(end)

    def _say(self, event: VmmEvent) -> None:
        """Never wait for an agent that does not listen."""
        self._socket.send(event.pack(), socket.MSG_DONTWAIT)

    def on_out(self, port: int, size: int, value: int, argument: int) -> None:
        """Serve the enclave's one port, as run.c does."""
        if self._end is not None:
            return
        if (port, size) != (abi.PORT, 1):
            self.on_fault(Fault(13, 0, self._cpu.rip))
            self._cpu.stop()
        elif value == Exit.READY and not self._ready:
            self._ready = True
            self._say(VmmEvent(EventKind.READY))
            if self._debugger is not None:
                self._debugger.on_ready()
            threading.Thread(target=self._serve_agent, name="control", daemon=True).start()
        elif value == Exit.YIELD:
            os.sched_yield()  # the vCPU that is waited for does not run here
        elif value in {Exit.IDLE, Exit.WAKE, Exit.REST}:
            self._rest(value, argument)
        else:
            known = value == Exit.ABORT and argument in set(Status) - {Status.OK}
            self._finish(VmmEvent(EventKind.ABORT, status=argument if known else Status.ABORT))

    def on_fault(self, fault: Fault) -> None:
        """Keep the first fault as the end."""
        code, where = fault.error_code, fault.rip
        event = VmmEvent(EventKind.FAULT, fault.vector, code, where, fault.address, Status.FAULT)
        self._end = self._end or event

    def _finish(self, event: VmmEvent) -> None:
        self._end = self._end or event
        self._cpu.stop()
        self._regions.rouse()

    def _kill(self) -> None:
        """End the enclave because gdb's user says so."""
        self._finish(VmmEvent(EventKind.ABORT, status=Status.ABORT))

    def _host_address(self, physical: int, size: int) -> int:
        config = self._config
        if physical + size <= config.memory_bytes:
            return self._memory.address + physical
        region, offset = divmod(physical - config.channel_gpa, config.channel_stride)
        if not 0 <= region < config.region_count or offset + size > config.region_bytes:
            raise MalformedError("a page lies in neither memory nor channel")
        return self._regions.windows[region].address + offset

    def _rest(self, why: int, argument: int) -> None:
        """Wake a guest thread, sleep, or one after the other."""
        if why != Exit.IDLE:
            self._regions.wake(argument)
        if why == Exit.WAKE:
            return
        if not self._busy():
            self._awake.clear()
        self._regions.sleep()
        self._awake.set()

    def _serve_agent(self) -> None:
        """Attach and detach as the agent says: the control thread."""
        try:
            while True:
                data, fds, _, _ = socket.recv_fds(self._socket, abi.COMMAND_BYTES + 1, 2)
                if not data:
                    return self._finish(VmmEvent(EventKind.ABORT, status=Status.EXITED))  # the agent has gone
                try:
                    self._obey(abi.parse_command(data), fds)
                finally:
                    _close(fds)
        except (CafeError, OSError) as error:
            status = (error.errno if isinstance(error, OSError) else None) or errno.EPROTO
            self._finish(VmmEvent(EventKind.HOST, rip=_STEP_RECEIVE, status=status))

    def _obey(self, command: abi.VmmCommand, fds: Sequence[int]) -> None:
        if command.kind is CommandKind.DETACH:
            return self._regions.detach(command.region)
        if len(fds) != 1:
            raise MalformedError("one descriptor is needed to attach a region")
        try:
            answer = VmmEvent(EventKind.ATTACHED, self._regions.attach(fds[0]))
        except OSError as error:
            answer = VmmEvent(EventKind.ATTACHED, status=error.errno or errno.EIO)
        return self._say(answer)

    def _calls(self) -> tuple[int, int]:
        """Return calls begun and ended, a pair that no two calls share; constructors count as one."""
        if not self._ready:
            return (0, -1)
        started, finished, *_ = abi.MONITOR_VCPU.unpack_from(self._memory.view, self._config.monitor_gpa)
        return (started, finished)

    def _busy(self) -> bool:
        started, finished = self._calls()
        return started != finished

    def _watch(self) -> None:
        """Look at the monitor while the enclave is awake: the watchdog's thread."""
        tick = min(self._config.deadline_ns // _TICKS_PER_DEADLINE, _MAX_TICK_NS)
        seen, since = self._calls(), time.monotonic_ns()
        while True:
            time.sleep(tick / 1e9)
            self._awake.wait()
            calls, now = self._calls(), time.monotonic_ns()
            standing = self._debugger is not None and self._debugger.halted
            if calls != seen or calls[0] == calls[1] or standing:
                seen, since = calls, now
            elif now - since >= self._config.deadline_ns:
                self._finish(VmmEvent(EventKind.DEADLINE, rip=self._cpu.rip, status=Status.DEADLINE))
                return


def _bind_to_agent(connection: socket.socket) -> None:
    """Die with the agent; see isolate.c."""
    confine_process()
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    if struct.unpack("3i", credentials)[0] != os.getppid():
        raise HostError("the agent has gone")


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _receive(connection: socket.socket) -> tuple[VmmConfig, int]:
    data, fds, _, _ = socket.recv_fds(connection, abi.CONFIG_BYTES + 1, 2)
    if len(fds) != 1:
        raise MalformedError("one descriptor is needed: the enclave's memory")
    config = abi.parse_config(data)
    region_bytes = config.slot_count * config.slot_bytes + abi.CHANNEL_HEADER_BYTES
    sound = (
        config.memory_bytes > 0,
        config.memory_bytes % abi.PAGE == 0,
        config.monitor_gpa + abi.MONITOR_BYTES <= config.memory_bytes,
        config.vcpu_count >= 1,
        1 <= config.region_count <= abi.MAX_REGIONS,
        1 <= config.slot_count <= abi.MAX_SLOTS,
        abi.MIN_SLOT_BYTES <= config.slot_bytes <= abi.MAX_SLOT_BYTES,
        region_bytes <= config.region_bytes <= config.channel_stride,
        config.region_bytes % abi.PAGE == 0,
    )
    if not all(sound):
        raise MalformedError("a configuration that no loader writes")
    return config, fds[0]


def _refuse(connection: socket.socket, step: int, error: int) -> int:
    with contextlib.suppress(OSError):  # the agent may have gone
        connection.send(VmmEvent(EventKind.HOST, rip=step, status=error).pack())
    return 1


def main() -> int:
    """Run one enclave and return the exit status."""
    connection = socket.socket(fileno=abi.VMM_FD)
    try:
        _bind_to_agent(connection)
    except HostError:
        return _refuse(connection, _STEP_ISOLATE, errno.ESRCH)
    try:
        futex_wait_any([])
    except HostError:
        return _refuse(connection, _STEP_ISOLATE, errno.ENOSYS)
    try:
        config, memory_fd = _receive(connection)
        if config.isa > _ISA_V2:
            return _refuse(connection, _STEP_CPUID, errno.EOPNOTSUPP)
        Emulator(connection, config, memory_fd, parse_arguments(sys.argv[1:])).run()
    except (CafeError, OSError):
        return _refuse(connection, _STEP_CONFIG, errno.EINVAL)
    return 0


if __name__ == "__main__":
    sys.stdout.flush()
    os._exit(main())  # the watchdog's thread may be anywhere; nothing is left to clean up
