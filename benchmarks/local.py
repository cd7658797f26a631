"""A package run on this machine without a server: what the figures of the boundary itself need."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from cafe_lib.image.confidential import Confidential, parse_confidential
from cafe_lib.image.manifest import verify_manifest
from cafe_lib.image.package import Package, open_package, unwrap_confidential
from cafe_lib.toolchain.keys import create_publisher, load_publisher
from hypervisor_agent.abi import Status
from hypervisor_agent.enclave.channel import Channel
from hypervisor_agent.enclave.enclave import Enclave
from hypervisor_agent.guests.messages import REQUEST_BYTES, LaunchReply, LaunchRequest
from hypervisor_agent.loader.load import ImageLoader

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "bench"


def compile_c(name: str, *sources: str, flags: tuple[str, ...] = ()) -> Path:
    """Build a C program of this folder into build/bench."""
    BUILD.mkdir(parents=True, exist_ok=True)
    out = BUILD / name
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{HERE}", "-o", str(out), *sources, *flags]
    subprocess.run(command, check=True, cwd=HERE)
    return out


@dataclass(frozen=True)
class Released:
    """A package with its confidential part, as the agent holds it after a grant."""

    package: Package
    confidential: Confidential
    chunks: tuple[bytes, ...]

    @classmethod
    def build(cls, project: str) -> Released:
        """Run ``cafe build`` on a project of this folder, then verify and unwrap what it made."""
        publisher = BUILD / "publisher"
        if not publisher.exists():
            create_publisher(publisher)
        identity = load_publisher(publisher)
        out = BUILD / project
        cafe = Path(sys.executable).with_name("cafe")
        command = [str(cafe), "build", str(HERE / project), "--publisher", str(publisher)]
        subprocess.run([*command, "--output", str(out), "--json"], check=True, capture_output=True, cwd=HERE)
        package = open_package(out / f"{project}.cafe")
        verify_manifest(package.cose, identity.public_key)
        confidential = unwrap_confidential(identity.secret, package.cose, package.blob)
        return cls(package, parse_confidential(confidential), tuple(package.chunks()))

    def load(self) -> ImageLoader:
        """Decrypt every chunk into fresh enclave memory."""
        loader = ImageLoader(self.package.manifest, self.confidential)
        for index, chunk in enumerate(self.chunks):
            loader.take_chunk(index, chunk)
        return loader


class Guests:
    """Answers launch requests on a UNIX socket with a channel of one running enclave for each."""

    def __init__(self, path: Path, enclave: Enclave) -> None:
        self._enclave = enclave
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        held: list[object] = []
        while True:
            connection, _ = self._socket.accept()
            request = LaunchRequest.parse(connection.recv(REQUEST_BYTES, socket.MSG_WAITALL))
            channel = Channel(*self._enclave.channel_size)
            self._enclave.attach(channel)
            held += [connection, channel]
            reply = LaunchReply(request.number, Status.OK, channel.size)
            socket.send_fds(connection, [reply.encode()], [channel.fd])
