"""A package run on this machine without a server: what the figures of the boundary itself need."""

from __future__ import annotations

import functools
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cafe_lib.image.confidential import parse_confidential
from cafe_lib.image.manifest import verify_manifest
from cafe_lib.image.package import open_package, unwrap_confidential
from cafe_lib.toolchain.keys import create_publisher, load_publisher
from hypervisor_agent.abi import Status
from hypervisor_agent.enclave.channel import Channel
from hypervisor_agent.enclave.enclave import Enclave
from hypervisor_agent.enclave.process import SparePool
from hypervisor_agent.guests.messages import REQUEST_BYTES, LaunchReply, LaunchRequest
from hypervisor_agent.leases import Lease, boottime
from hypervisor_agent.release import Order, Release

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "bench"
CORES = tuple(sorted(os.sched_getaffinity(0)))[:2]
"""The two that everything runs on, whatever the machine has; one if there is only one."""
GUEST_CORE, ENCLAVE_CORE = CORES[0], CORES[-1]
_ABI = HERE.parent / "cafe_lib" / "include"
_LEASE_SECONDS = 3600.0


def compile_c(name: str, *sources: str, flags: tuple[str, ...] = ()) -> Path:
    """Build a C program of this folder into build/bench/bin."""
    out = BUILD / "bin" / name
    out.parent.mkdir(parents=True, exist_ok=True)
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{HERE}", "-o", str(out), *sources, *flags]
    subprocess.run(command, check=True, cwd=HERE)
    return out


def run_c(program: Path, *arguments: object, **env: str) -> dict[str, float]:
    """Run a program of this folder as :func:`run_lines` does, and return its last line."""
    return run_lines(program, *arguments, **env)[-1]


def run_lines(program: Path, *arguments: object, **env: str) -> list[dict[str, float]]:
    """Run a program of this folder, which is told the two cores, and return the JSON of every line.

    :raises CalledProcessError: it failed; what it had to say went to standard error.
    """
    env |= {"BENCH_CORE_0": str(GUEST_CORE), "BENCH_CORE_1": str(ENCLAVE_CORE)}
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=env)
    return [json.loads(line) for line in done.stdout.splitlines()]


@functools.cache
def released(project: str) -> Release:
    """Run ``cafe build`` on a project of this folder; return what an agent holds after a grant of it."""
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
    confidential = parse_confidential(unwrap_confidential(identity.secret, package.cose, package.blob))
    manifest = package.manifest
    order = Order("bench", secrets.token_bytes(32), manifest.interface_digest)
    lease = Lease(secrets.token_bytes(16), boottime(), _LEASE_SECONDS)
    return Release(order, project, manifest, confidential, tuple(package.chunks()), lease)


def compile_guest(name: str, project: str) -> Path:
    """Build ``name.c`` as a public program of a project of this folder."""
    released(project)
    library = BUILD / project / f"lib{project}.a"
    return compile_c(
        name, f"{name}.c", str(library), flags=(f"-I{BUILD / project / 'include'}", f"-I{_ABI}", "-pthread")
    )


def pin(enclave: Enclave, *cores: int) -> None:
    """Keep every thread of an enclave's VMM on these cores."""
    for task in Path(f"/proc/{enclave.pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), set(cores))


@contextmanager
def running(release: Release, pool: SparePool, *cores: int) -> Iterator[Enclave]:
    """Start an enclave on these cores, the second one if none are named, and destroy it."""
    enclave = Enclave.start(release.load(), pool)
    try:
        pin(enclave, *(cores or (ENCLAVE_CORE,)))
        yield enclave
    finally:
        enclave.destroy()


@dataclass(frozen=True)
class Guests:
    """Answers launch requests on a UNIX socket; each process gets a channel of one running enclave."""

    enclave: Enclave
    listener: socket.socket

    def serve(self) -> None:
        """Take processes until the socket is shut down."""
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._attend, args=(connection,), daemon=True).start()

    def _attend(self, connection: socket.socket) -> None:
        request = LaunchRequest.parse(connection.recv(REQUEST_BYTES, socket.MSG_WAITALL))
        with connection, closing(Channel(*self.enclave.channel_size)) as channel:
            region = self.enclave.attach(channel)
            reply = LaunchReply(request.number, Status.OK, channel.size)
            socket.send_fds(connection, [reply.encode()], [channel.fd])
            connection.recv(1)  # nothing more is said: it ends
            self.enclave.detach(region)


@contextmanager
def serving(enclave: Enclave) -> Iterator[str]:
    """Serve processes that use this enclave; gives the socket's path, for CAFE_SOCKET."""
    with tempfile.TemporaryDirectory(prefix="cafe-") as folder:
        path = f"{folder}/socket"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(path)
            listener.listen()
            thread = threading.Thread(target=Guests(enclave, listener).serve)
            thread.start()
            try:
                yield path
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                thread.join()
