"""Runs one enclave under Unicorn where there is no KVM: the VMM's protocol on descriptor 3, the same memory.

Started as ``python -I -m hypervisor_agent.enclave.emulator``. Slower than KVM, without AVX, and its atomic
instructions are not atomic towards the guest, which the channel does not ask for: each word has one writer.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import socket
import struct
import sys
import threading
import time
from typing import Final

from cafe_lib.errors import CafeError, HostError, MalformedError
from hypervisor_agent import abi
from hypervisor_agent.abi import ChannelState, EventKind, Exit, Status, VmmConfig, VmmEvent
from hypervisor_agent.enclave.emulated import EmulatedCpu, Fault
from hypervisor_agent.enclave.futex import confine_process, futex_wait, futex_wake
from hypervisor_agent.enclave.walk import user_mappings

_ISA_V2: Final = 2  # enum cafe_isa: the most that Unicorn emulates
_STEP_ISOLATE: Final = 1  # enum vmm_step of vmm.h
_STEP_CONFIG: Final = 6
_STEP_CPUID: Final = 10
_TICKS_PER_DEADLINE: Final = 8
_MAX_TICK_NS: Final = 250_000_000
_WORD: Final = struct.Struct("<I")


class SharedMemory:
    """A mapped descriptor with its address, word by word."""

    def __init__(self, fd: int, size: int) -> None:
        sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
        if not sealed or os.fstat(fd).st_size != size:
            raise MalformedError("a descriptor that could shrink, or of another size than configured")
        self._map = mmap.mmap(fd, size)
        self._map.madvise(mmap.MADV_DONTDUMP)
        os.close(fd)
        self.view = memoryview(self._map)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def load(self, offset: int) -> int:
        """Read a u32."""
        return int(_WORD.unpack_from(self.view, offset)[0])

    def store(self, offset: int, value: int) -> None:
        """Write a u32."""
        _WORD.pack_into(self.view, offset, value)


class Emulator:
    """One enclave from its configuration to its end; the outcome is the first thing that ends it."""

    def __init__(self, connection: socket.socket, config: VmmConfig, fds: tuple[int, int]) -> None:
        self._socket = connection
        self._config = config
        self._memory = SharedMemory(fds[0], config.memory_bytes)
        self._channel = SharedMemory(fds[1], config.channel_bytes)
        self._cpu = EmulatedCpu(self)
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
        self._mark(ChannelState.DEAD, end.status)
        self._socket.send(end.pack())

    def on_out(self, port: int, size: int, value: int, argument: int) -> None:
        """Serve the enclave's one port, as run.c does."""
        if self._end is not None:
            return
        if (port, size) != (abi.PORT, 1):
            self.on_fault(Fault(13, 0, self._cpu.rip))
            self._cpu.stop()
        elif value == Exit.READY and not self._ready:
            self._ready = True
            self._mark(ChannelState.READY, Status.OK)
            self._socket.send(VmmEvent(EventKind.READY).pack())
        elif value == Exit.IDLE:
            self._sleep()
        elif value == Exit.WAKE:
            self._wake(argument)
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

    def _host_address(self, physical: int, size: int) -> int:
        config = self._config
        if physical + size <= config.memory_bytes:
            return self._memory.address + physical
        offset = physical - config.channel_gpa
        if offset < 0 or offset + size > config.channel_bytes:
            raise MalformedError("a page lies in neither memory nor channel")
        return self._channel.address + offset

    def _slot(self, index: int) -> int:
        return abi.CHANNEL_HEADER_BYTES + index * self._config.slot_bytes

    def _pending(self) -> bool:
        starts = [self._slot(index) for index in range(self._config.slot_count)]
        load = self._channel.load
        return any(load(start + abi.SLOT_REQUEST) != load(start + abi.SLOT_REPLY) for start in starts)

    def _sleep(self) -> None:
        """See vmm_sleep() in wake.c; the system call is the full fence."""
        bell = self._channel.load(abi.CHANNEL_BELL)
        self._channel.store(abi.CHANNEL_SLEEPING, 1)
        futex_wake(self._channel.address + abi.CHANNEL_SLEEPING)
        if not self._pending():
            if not self._busy():
                self._awake.clear()
            futex_wait(self._channel.address + abi.CHANNEL_BELL, bell)
            self._awake.set()
        self._channel.store(abi.CHANNEL_SLEEPING, 0)

    def _wake(self, slot: int) -> None:
        if slot < self._config.slot_count:
            futex_wake(self._channel.address + self._slot(slot) + abi.SLOT_REPLY)

    def _mark(self, state: ChannelState, status: int) -> None:
        self._channel.store(abi.CHANNEL_STATUS, status)
        self._channel.store(abi.CHANNEL_STATE, state)
        futex_wake(self._channel.address + abi.CHANNEL_STATE)
        if state is ChannelState.DEAD:
            for index in range(self._config.slot_count):
                self._wake(index)

    def _calls(self) -> tuple[int, int]:
        """Return calls begun and ended, a pair that no two calls share; constructors count as one."""
        if not self._ready:
            return (0, -1)
        started, finished, _ = abi.MONITOR.unpack_from(self._memory.view, self._config.monitor_gpa)
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
            if calls != seen or calls[0] == calls[1]:
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


def _receive(connection: socket.socket) -> tuple[VmmConfig, tuple[int, int]]:
    data, fds, _, _ = socket.recv_fds(connection, abi.CONFIG_BYTES + 1, 3)
    if len(fds) != 2:  # noqa: PLR2004 - the enclave's memory and the channel
        raise MalformedError("two descriptors are needed")
    return abi.parse_config(data), (fds[0], fds[1])


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
        config, fds = _receive(connection)
        if config.isa > _ISA_V2:
            return _refuse(connection, _STEP_CPUID, errno.EOPNOTSUPP)
        Emulator(connection, config, fds).run()
    except (CafeError, OSError):
        return _refuse(connection, _STEP_CONFIG, errno.EINVAL)
    return 0


if __name__ == "__main__":
    sys.stdout.flush()
    os._exit(main())  # the watchdog's thread may be anywhere; nothing is left to clean up
