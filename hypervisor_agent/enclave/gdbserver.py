"""The thread that talks to gdb over a socket: one connection at a time, one debugger."""

from __future__ import annotations

import contextlib
import select
import socket
from typing import Final

from cafe_lib.errors import LimitError
from hypervisor_agent.enclave.debugger import Debugger
from hypervisor_agent.enclave.gdbpacket import PacketReader, Sign, encode_packet
from hypervisor_agent.enclave.gdbstub import SIGINT, GdbSession, Then

_RECEIVE_BYTES: Final = 65536


def serve_gdb(listener: socket.socket, debugger: Debugger) -> None:
    """Serve one gdb after the other until the listener is closed: a daemon thread's work."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError, LimitError):
            Conversation(connection, debugger).run()
        debugger.detach()


class Conversation:
    """One gdb from its connection to its end."""

    def __init__(self, connection: socket.socket, debugger: Debugger) -> None:
        self._connection = connection
        self._debugger = debugger
        self._session: GdbSession = debugger.attach()
        self._reader = PacketReader()
        self._last = b""
        self._over = False

    def run(self) -> None:
        """Talk until gdb leaves; raises OSError or LimitError."""
        sources: list[int] = [self._connection.fileno(), self._debugger.news]
        while not self._over:
            ready, _, _ = select.select(sources, [], [])
            if self._debugger.news in ready:
                self._send(self._session.stopped(self._debugger.take_stop()))
            if self._connection.fileno() in ready:
                self._receive()

    def _receive(self) -> None:
        data = self._connection.recv(_RECEIVE_BYTES)
        self._over = not data
        for item in self._reader.feed(data):
            if isinstance(item, bytes):
                self._answer(item)
            elif item is Sign.AGAIN:
                self._connection.sendall(self._last)
            elif item is Sign.DAMAGED:
                self._connection.sendall(b"-")
            elif item is Sign.INTERRUPT and (stop := self._debugger.interrupt(SIGINT)):
                self._send(self._session.stopped(stop))

    def _answer(self, packet: bytes) -> None:
        if not self._session.no_ack:
            self._connection.sendall(b"+")
        answer = self._debugger.answer(self._session, packet)
        if answer is None:
            return
        if answer.text is not None:
            self._send(answer.text)
        self._over = self._over or answer.then in (Then.DETACH, Then.KILL)

    def _send(self, text: bytes) -> None:
        self._last = encode_packet(text)
        self._connection.sendall(self._last)
