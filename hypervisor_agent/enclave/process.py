"""A VMM (or emulator) process: spawned with its socket on descriptor 3, configured, listened to, ended.

A VMM gets SIGKILL when the *thread* that spawned it ends (PR_SET_PDEATHSIG), so a :class:`SparePool` spawns
all of them from one thread that lives as long as the agent; any thread may call its methods.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from cafe_lib.errors import HostError
from hypervisor_agent.abi import EVENT_BYTES, VMM_FD, VmmCommand, VmmEvent, parse_event
from hypervisor_agent.enclave.backend import Backend

_REFILL_PAUSE_SECONDS: Final = 0.02


class EnclaveProcess:
    """One process. The zombie lives until :meth:`end`, the descriptor until :meth:`close`."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self._socket = connection

    @classmethod
    def spawn(cls, backend: Backend) -> EnclaveProcess:
        """Start one that waits for its configuration. Mind which thread calls (see above).

        :raises HostError: it cannot be started.
        """
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise HostError(f"no socket for an enclave: {error.strerror}") from error
        with theirs:
            actions = (
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), VMM_FD),
            )
            try:
                # Its own process group: a terminal's Ctrl-C is for the agent, which ends its enclaves.
                pid = os.posix_spawn(
                    backend.command[0],
                    backend.command,
                    {},
                    file_actions=actions,
                    setpgroup=0,
                    setsigmask=(),
                    setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGALRM),
                )
            except OSError as error:
                ours.close()
                raise HostError(f"{backend.command[0]}: {error.strerror}") from error
        return cls(pid, ours)

    def fileno(self) -> int:
        """Return a descriptor that is readable when an event has come or the process has gone."""
        return self._socket.fileno()

    def has_news(self) -> bool:
        """Say whether an event has come or the process has gone."""
        poll = select.poll()  # select() knows no descriptor above 1023
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def configure(self, config: bytes, memory_fd: int) -> None:
        """Send the first message a VMM gets. One that is gone already shows at :meth:`receive`."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._socket, [config], [memory_fd])

    def command(self, command: VmmCommand, fd: int | None = None) -> None:
        """Send a command, with a channel region if it attaches one; as :meth:`configure` otherwise.

        :raises BlockingIOError: the VMM has not read for so long that the socket is full.
        """
        fds = [] if fd is None else [fd]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._socket, [command.pack()], fds, socket.MSG_DONTWAIT)

    def receive(self, timeout_seconds: float | None) -> VmmEvent | None:
        """Return the next event, or None when the process has gone.

        :param timeout_seconds: None waits for ever.
        :raises TimeoutError: nothing came in time.
        :raises MalformedError: not an event.
        """
        ready = select.poll()
        ready.register(self._socket, select.POLLIN)
        if not ready.poll(None if timeout_seconds is None else timeout_seconds * 1000):
            raise TimeoutError
        data = self._read()
        if data is None:  # it went with a command unread, which is told once, ahead of what it has sent
            data = self._read()
        return parse_event(data) if data else None

    def _read(self) -> bytes | None:
        try:
            return self._socket.recv(EVENT_BYTES + 1)
        except ConnectionResetError:
            return None

    def end(self) -> None:
        """Kill and reap it; idempotent. Afterwards nothing touches the enclave's memory."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)  # a zombie keeps its number until it is reaped below
            os.waitpid(self.pid, 0)
            self.pid = 0

    def close(self) -> None:
        """Close the socket; idempotent."""
        self._socket.close()


class SparePool:
    """Keeps one process ready, its VM made already, so that a start need not wait for them."""

    def __init__(self, backend: Backend) -> None:
        self._backend: Final = backend
        self._thread = ThreadPoolExecutor(1, "cafe-spawn")
        self._spare: Future[EnclaveProcess] | None = None
        self._lock = threading.Lock()
        self._wanted = threading.Event()

    @property
    def backend(self) -> Backend:
        """What the pool spawns."""
        return self._backend

    def refill(self) -> None:
        """Have a spare made if there is none; returns at once.

        Spawning holds the interpreter's lock for most of a millisecond, so it waits until the start that used
        the last spare has been answered, or until the next one cannot wait.
        """
        with self._lock:
            if self._spare is None:
                self._wanted.clear()
                self._spare = self._thread.submit(self._spawn_soon)

    def take(self) -> EnclaveProcess:
        """Return a process that has no enclave yet: the spare, or a new one.

        :raises HostError: it cannot be started.
        """
        with self._lock:  # one process must never be handed out twice
            spare, self._spare = self._spare, None
        if spare is not None:
            self._wanted.set()
            process = spare.result()
            if not process.has_news():
                return process
            process.end()  # it failed while it waited: a fresh one works, or says why not
            process.close()
        return self._spawn().result()

    def _spawn_soon(self) -> EnclaveProcess:
        self._wanted.wait(_REFILL_PAUSE_SECONDS)
        return EnclaveProcess.spawn(self._backend)

    def _spawn(self) -> Future[EnclaveProcess]:
        return self._thread.submit(EnclaveProcess.spawn, self._backend)

    def close(self) -> None:
        """End the spare and the spawning thread; every process spawned here dies with it."""
        if self._spare is not None:
            with contextlib.suppress(HostError):
                spare = self.take()
                spare.end()
                spare.close()
        self._thread.shutdown()
