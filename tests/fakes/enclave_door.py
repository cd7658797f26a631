"""Lets real programs with libcafe into enclaves: a control socket with no SBS, licence or agent behind it."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from cafe_lib.toolchain.build import BuildResult
from hypervisor_agent.abi import Status
from hypervisor_agent.enclave.channel import Channel
from hypervisor_agent.enclave.enclave import Enclave
from hypervisor_agent.guests.messages import REQUEST_BYTES, LaunchReply, LaunchRequest

POLL_SECONDS = 0.02
PROGRAM_SECONDS = 60


class Door:
    """One build's control socket. A process that asks again on its connection gets a fresh enclave."""

    def __init__(self, address: Path, built: BuildResult, launch: Callable[[], Enclave]) -> None:
        self.address, self.built, self.launch = address, built, launch
        self.open = True
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(str(address))
        self.socket.listen()
        self.socket.settimeout(POLL_SECONDS)
        self.thread = threading.Thread(target=self._accept)
        self.thread.start()

    def run(
        self, *command: str | Path, text: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program whose calls come in here."""
        return subprocess.run(
            command,
            input=text,
            env={**os.environ, "CAFE_SOCKET": str(self.address), **environment},
            capture_output=True,
            text=True,
            timeout=PROGRAM_SECONDS,
            check=False,
        )

    def close(self) -> None:
        self.open = False
        self.thread.join()
        self.socket.close()

    def _accept(self) -> None:
        while self.open:
            try:
                connection, _ = self.socket.accept()
            except TimeoutError:
                continue
            with connection:
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(POLL_SECONDS)
        enclave, channel = None, None
        while self.open:
            try:
                data = connection.recv(REQUEST_BYTES, socket.MSG_WAITALL)
            except TimeoutError:
                if enclave is not None:
                    enclave.wait(0)  # notices its end, and tells the channel
                continue
            if not data:
                break
            if enclave is not None:
                enclave.destroy()
            enclave = self.launch()
            channel = channel or Channel(*enclave.channel_size)
            enclave.attach(channel)
            self._answer(connection, LaunchRequest.parse(data), channel)
        if enclave is not None and channel is not None:
            enclave.destroy()
            channel.close()

    def _answer(self, connection: socket.socket, request: LaunchRequest, channel: Channel) -> None:
        known = request.secret_binary_id == self.built.secret_binary_id
        reply = LaunchReply(request.number, Status.OK if known else Status.NOT_FOUND, channel.size)
        socket.send_fds(connection, [reply.encode()], [channel.fd] if known else [])
