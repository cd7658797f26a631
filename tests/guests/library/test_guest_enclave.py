"""The same callers against real enclaves, on both backends: `cafe build`, loader, VMM and guest library."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cafe_lib.image.confidential import parse_confidential
from cafe_lib.image.package import open_package, unwrap_confidential
from cafe_lib.toolchain.build import BuildResult, build_project
from cafe_lib.toolchain.keys import PublisherIdentity, create_publisher
from cafe_lib.toolchain.project import load_project
from hypervisor_agent.abi import Status
from hypervisor_agent.enclave.channel import Channel
from hypervisor_agent.enclave.enclave import Enclave
from hypervisor_agent.enclave.process import SparePool
from hypervisor_agent.guests.messages import REQUEST_BYTES, LaunchReply, LaunchRequest
from hypervisor_agent.loader.load import ImageLoader

NATIVE = Path(__file__).resolve().parent / "native"
PROJECT = """name = "sample"
version = "1.0"
sources = ["sample.c"]
headers = ["sample.h"]
deadline_ms = 5000
[memory]
slots = 3
slot = "16K"
"""
CTYPES = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.sample_text.restype = ctypes.c_uint32
print(library.sample_text(b"hello") == 0x4f9f2cab, library.cafe_last_error())
"""


@dataclass(frozen=True)
class Released:
    """A built project and its publisher, who can unwrap it."""

    built: BuildResult
    publisher: PublisherIdentity

    def start(self, pool: SparePool) -> Enclave:
        package = open_package(self.built.package)
        confidential = unwrap_confidential(self.publisher.secret, package.cose, package.blob)
        loader = ImageLoader(package.manifest, parse_confidential(confidential))
        for index, chunk in enumerate(package.chunks()):
            loader.take_chunk(index, chunk)
        return Enclave.start(loader.finish(), pool)

    def program(self, place: Path, name: str, *extra: str) -> Path:
        target = place / name
        library = [str(self.built.static_library), "-lstdc++", "-pthread", "-o", str(target)]
        source = ["-D_GNU_SOURCE", f"-I{self.built.include_dir}", *extra, str(NATIVE / f"{name}.c")]
        subprocess.run(["gcc", "-O1", "-Wall", *source, "-xnone", *library], check=True)
        return target


def release(place: Path, header: str, source: str, project: str) -> Released:
    """Build a project of one header and one source of native/."""
    for name in (header, source):
        shutil.copy(NATIVE / name, place)
    (place / "cafe.toml").write_text(project)
    publisher = create_publisher(place / "publisher")
    return Released(build_project(load_project(place), publisher, lambda _: None), publisher)


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    return release(tmp_path_factory.mktemp("project"), "sample.h", "sample.c", PROJECT)


@dataclass
class SmallAgent:
    """Gives every launch request an enclave of its own, and watches that it ends."""

    path: Path
    released: Released
    pool: SparePool
    enclaves: list[Enclave] = field(default_factory=list)
    requests: list[LaunchRequest] = field(default_factory=list)

    def open(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(self.path))
        self.socket.listen()
        self.thread = threading.Thread(target=self._accept)
        self.thread.start()

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()
        for enclave in self.enclaves:
            enclave.destroy()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection, contextlib.ExitStack() as cleanup:
                self._serve(connection, cleanup)

    def _serve(self, connection: socket.socket, cleanup: contextlib.ExitStack) -> None:
        """One program at a time, with one channel; between its requests its enclave is watched."""
        channel = None
        while data := connection.recv(REQUEST_BYTES, socket.MSG_WAITALL):
            request = LaunchRequest.parse(data)
            self.requests.append(request)
            enclave = self.released.start(self.pool)
            self.enclaves.append(enclave)
            if channel is None:
                channel = Channel(*enclave.channel_size)
                cleanup.callback(channel.close)
            enclave.attach(channel)
            reply = LaunchReply(request.number, Status.OK, channel.size)
            socket.send_fds(connection, [reply.encode()], [channel.fd])
            connection.settimeout(0.02)
            while not self._spoken(connection):
                enclave.wait(0.02)
            connection.settimeout(None)

    def _spoken(self, connection: socket.socket) -> bool:
        try:
            connection.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return False
        return True


@pytest.fixture
def small_agent(tmp_path: Path, released: Released, pool: SparePool) -> Iterator[SmallAgent]:
    agent = SmallAgent(tmp_path / "agent.sock", released, pool)
    agent.open()
    yield agent
    agent.close()


@pytest.mark.parametrize("language", ["c", "c++"])
@pytest.mark.case("B09", "B14")
def test_structs_large_buffers_and_callbacks(tmp_path: Path, pool: SparePool, language: str) -> None:
    """What native stubs do, they do across the channel, nested calls and bulk area included."""
    memory = 'bulk = "8M"\nheap = "16M"\n'
    project = PROJECT.replace("sample.c", "pass_inside.c").replace("sample", "pass") + memory
    built = release(tmp_path, "pass.h", "pass_inside.c", f'language = "{language}"\n{project}')
    agent = SmallAgent(tmp_path / "agent.sock", built, pool)
    program = built.program(tmp_path, "pass", *(("-xc++",) if language == "c++" else ()))
    agent.open()
    done = _run(agent, program)
    agent.close()
    assert (done.returncode, done.stdout) == (0, "all good\n"), done.stderr


def _run(agent: SmallAgent, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        env=os.environ | {"CAFE_SOCKET": str(agent.path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("extra", [(), ("-xc++",)], ids=["c", "c++"])
@pytest.mark.case("B04", "B06", "B10")
def test_every_way_a_parameter_crosses(
    small_agent: SmallAgent, tmp_path: Path, extra: tuple[str, ...]
) -> None:
    done = _run(small_agent, small_agent.released.program(tmp_path, "caller", *extra))
    assert (done.returncode, done.stdout) == (0, "all good\n"), done.stderr
    (request,) = small_agent.requests
    assert request.secret_binary_id == small_agent.released.built.secret_binary_id
    assert request.interface_digest == small_agent.released.built.manifest.interface_digest


def test_python_calls_the_shared_library(small_agent: SmallAgent) -> None:
    done = _run(small_agent, sys.executable, "-c", CTYPES, small_agent.released.built.shared_library)
    assert done.stdout == "True 0\n", done.stderr


@pytest.mark.case("B16")
def test_a_fault_is_one_calls_error(small_agent: SmallAgent, tmp_path: Path) -> None:
    """A system call in secret code faults; the next call starts a fresh enclave on the same connection."""
    done = _run(small_agent, small_agent.released.program(tmp_path, "probe"), "sleep", "10")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("sleep -1 error 4 the secret code faulted"), done.stderr
    assert lines[1].startswith("flip 1 error 0")
    assert [request.number for request in small_agent.requests] == [1, 2]


@pytest.mark.case("B14")
def test_more_threads_than_slots(small_agent: SmallAgent, tmp_path: Path) -> None:
    done = _run(small_agent, small_agent.released.program(tmp_path, "probe"), "threads", "7", "40")
    assert done.stdout.startswith("bad 0 error 0"), done.stderr
