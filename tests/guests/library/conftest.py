"""Builds programs against generated stubs and the guest library, and plays the agent for them."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from cafe_lib.interface.model import Interface
from cafe_lib.interface.parse import parse_header
from cafe_lib.toolchain.stubs_public import PublicBinding, public_stub_source
from cafe_lib.toolchain.stubs_secret import secret_stub_source

ROOT = Path(__file__).resolve().parents[3]
NATIVE = Path(__file__).resolve().parent / "native"
INCLUDE, GUEST, RUNTIME = (ROOT / "cafe_lib" / name for name in ("include", "guest", "runtime"))
STRICT = ("-O1", "-g", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-pthread")
RACES = ("-fsanitize=thread", "-Wno-tsan", "-fno-omit-frame-pointer")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
IMAGE_BYTES = 8192
SHIM_SYMBOLS = ("shim_call", "shim_ask", "shim_region", "shim_bulk_offset", "shim_bulk_bytes")
REQUEST = struct.Struct("<IIQ32s32s")
REPLY = struct.Struct("<IIQQ104s")
HEADER = struct.Struct("<QIIQQQ")
CONTROL_MAGIC, CHANNEL_MAGIC, ABI_VERSION = 0x314C4743, 0x314E484345464143, 2
STATE_OFFSET, STATUS_OFFSET, BELL_OFFSET = 64, 68, 128
STARTING, READY, DEAD = 0, 1, 2
BULK_ALIGN = 2 << 20
ATTACH_SECONDS = 10


@dataclass(frozen=True)
class Shop:
    """Where things are built, and whether with sanitizers."""

    place: Path
    flags: tuple[str, ...] = ()

    def compile(self, source: Path, name: str, *extra: str) -> Path:
        """Compile one object of strict C or C++."""
        target = self.place / f"{name}.o"
        plus = source.suffix == ".cc" or "-xc++" in extra
        compiler = ["g++", "-std=gnu++17"] if plus else ["gcc", "-std=gnu11"]
        includes = [f"-I{folder}" for folder in (self.place, NATIVE, INCLUDE)]
        command = [*compiler, *STRICT, *self.flags, *includes, *extra, "-c", str(source), "-o", str(target)]
        subprocess.run(command, check=True)
        return target

    def link(self, name: str, objects: list[Path], *extra: str) -> Path:
        """Link a program or shared library; by g++, so that either language goes."""
        target = self.place / name
        command = ["g++", *self.flags, "-pthread", *extra, *map(str, objects), "-o", str(target)]
        subprocess.run(command, check=True)
        return target

    def guest(self) -> list[Path]:
        """Compile the guest library."""
        hidden = ("-fPIC", "-fvisibility=hidden", "-fexceptions", "-Wshadow", f"-I{GUEST}")
        return [self.compile(path, f"guest-{path.stem}", *hidden) for path in sorted(GUEST.glob("*.c"))]

    def public(self, interface: Interface, name: str = "sample") -> Path:
        """Compile the public stub. Function i lies at 4096 + 16 i."""
        offsets = tuple(4096 + 16 * index for index in range(len(interface.functions)))
        binding = PublicBinding(name, b"\7" * 32, interface.digest(), IMAGE_BYTES, offsets)
        source = self.place / f"public_stub.{suffix(interface)}"
        source.write_text(public_stub_source(interface, binding))
        return self.compile(source, "public_stub", "-fPIC", f"-I{GUEST}")

    def secret(self, interface: Interface) -> list[Path]:
        """Compile the secret stub, and a table of its entries for the shim."""
        source = self.place / f"secret_stub.{suffix(interface)}"
        source.write_text(secret_stub_source(interface))
        names = [f"cafe_entry_{index}" for index in range(len(interface.functions))]
        table = self.place / "entries.c"
        table.write_text(
            '#include "shim.h"\n'
            + "".join(f"enum cafe_status {name}(struct rt_call *call);\n" for name in names)
            + f"shim_entry *const shim_entries[] = {{{', '.join(names)}}};\n"
            + f"const uint32_t shim_entry_count = {len(names)};\n"
        )
        runtime = f"-I{RUNTIME}"
        return [
            self.compile(source, "secret_stub", runtime),
            self.compile(table, "entries", runtime),
            self.compile(NATIVE / "shim.c", "shim", runtime),
            self.compile(NATIVE / "shim_runtime.c", "shim_runtime", runtime),
        ]

    def loopback(self, interface: Interface, secret: list[Path], program: list[Path]) -> Path:
        """Link a program with both sides: its calls run the secret stub without a channel.

        Both define functions of the same names, so the secret side keeps its own to itself.
        """
        inside = self.place / "inside.o"
        objects = [*secret, *self.secret(interface)]
        subprocess.run(["ld", "-r", *map(str, objects), "-o", str(inside)], check=True)
        keep = [f"--keep-global-symbol={name}" for name in SHIM_SYMBOLS]
        subprocess.run(["objcopy", *keep, str(inside)], check=True)
        channel = self.compile(NATIVE / "loopback.c", "loopback", f"-I{GUEST}", f"-I{RUNTIME}")
        return self.link("loopback", [*program, self.public(interface), channel, inside])


def suffix(interface: Interface) -> str:
    return "cc" if interface.language == "c++" else "c"


@dataclass(frozen=True)
class Built:
    """A library, its fake enclave and what callers are linked with."""

    shop: Shop
    public: list[Path]
    enclave: Path
    shared: Path

    def program(self, name: str, *extra: str) -> Path:
        """Build an ordinary program from native/NAME.c with the library linked in."""
        known = self.shop.place / f"{name}{len(extra)}"
        if known.exists():
            return known
        caller = self.shop.compile(NATIVE / f"{name}.c", f"caller-{name}", *extra)
        return self.shop.link(f"{name}{len(extra)}", [caller, *self.public])


def build(place: Path, flags: tuple[str, ...], language: str = "c") -> Built:
    """Build everything for sample.h."""
    shop = Shop(place, flags)
    interface = parse_header(NATIVE / "sample.h", [INCLUDE], language)
    public = [shop.public(interface), *shop.guest()]
    secret = shop.compile(NATIVE / "sample.c", "secret")
    pieces = [secret, *shop.secret(interface), shop.compile(NATIVE / "enclave.c", "enclave", f"-I{RUNTIME}")]
    shared = shop.link("libsample.so", public, "-shared", "-Wl,-z,nodelete,-z,defs") if not flags else place
    return Built(shop, public, shop.link("fake-enclave", pieces), shared)


@dataclass(frozen=True)
class Hand:
    """The interface whose two sides are written by hand: programs of it, and the enclave that serves them."""

    enclave: Path
    probe: Path
    stress: Path


def build_hand(place: Path, flags: tuple[str, ...], enclave_flags: tuple[str, ...]) -> Hand:
    """Build both programs with ``flags``."""
    shop = Shop(place, flags)
    library = [shop.compile(NATIVE / "hand.c", "hand", f"-I{GUEST}"), *shop.guest()]
    programs = {}
    for name in ("hand_probe", "stress"):
        programs[name] = shop.link(name, [shop.compile(NATIVE / f"{name}.c", name, "-fexceptions"), *library])
    other = Shop(place, enclave_flags)
    enclave = other.link("hand-enclave", [other.compile(NATIVE / "hand_enclave.c", "hand-enclave", "-O2")])
    return Hand(enclave, programs["hand_probe"], programs["stress"])


@pytest.fixture(scope="session", params=["plain", "sanitized"])
def hand(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Hand:
    """Build everything of hand.h, once as a program is built and once with sanitizers."""
    flags = SANITIZE if request.param == "sanitized" else ()
    return build_hand(tmp_path_factory.mktemp("hand"), flags, flags)


@pytest.fixture(scope="session")
def racing(tmp_path_factory: pytest.TempPathFactory) -> Hand:
    """Build the same with ThreadSanitizer."""
    return build_hand(tmp_path_factory.mktemp("racing"), RACES, ())


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("plain"), ())


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("sanitized"), SANITIZE)


@pytest.fixture
def shop_in() -> Callable[[Path], Shop]:
    """Build with sanitizers in a directory."""
    return lambda place: Shop(place, SANITIZE)


@dataclass
class FakeAgent:
    """Answers launch requests as told, each with an enclave process of its own."""

    path: Path
    enclave: Path
    slots: int = 4
    slot_bytes: int = 16384
    bulk_bytes: int = 0
    again: bool = False  # a fresh enclave gets the region of the one before, as a real agent does
    mode: str = "good"
    status: int = 0
    message: bytes = b""
    edit_header: Callable[[bytes], bytes] = bytes
    edit_reply: Callable[[bytes], bytes] = bytes
    seals: int = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
    size_off: int = 0
    descriptors: int = 1
    requests: list[tuple[object, ...]] = field(default_factory=list)
    regions: list[mmap.mmap] = field(default_factory=list)
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)
    kept: int = -1

    def __enter__(self) -> Self:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(self.path))
        self.socket.listen(16)
        self.thread = threading.Thread(target=self._accept)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End everything, as a killed agent would."""
        if self.path.exists():
            self.path.unlink()
            self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()
        for connection in self.connections:
            _shut(connection)
        self.thread.join()
        for child in self.children:
            child.kill()
            child.wait()
        for region in self.regions:
            region.close()
        self.regions.clear()
        if self.kept >= 0:
            os.close(self.kept)
            self.kept = -1

    def kill_enclaves(self, status: int) -> None:
        """End every enclave and say why in the channel, without waking anyone."""
        for child, region in list(zip(self.children, self.regions, strict=True)):
            child.kill()
            child.wait()
            region[STATUS_OFFSET : STATUS_OFFSET + 4] = struct.pack("<I", status)
            region[STATE_OFFSET : STATE_OFFSET + 4] = struct.pack("<I", DEAD)

    def _accept(self) -> None:
        threads = []
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                break
            self.connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            while len(data := _receive(connection, REQUEST.size)) == REQUEST.size:
                request = REQUEST.unpack(data)
                self.requests.append(request)
                self._answer(connection, request[2])

    def _answer(self, connection: socket.socket, number: int) -> None:
        region_bytes = 4096 + self.slots * self.slot_bytes
        if self.bulk_bytes:
            region_bytes = -(-region_bytes // BULK_ALIGN) * BULK_ALIGN + self.bulk_bytes
        reply = self.edit_reply(
            REPLY.pack(CONTROL_MAGIC, self.status, number, region_bytes, self.message.ljust(104, b"\0"))
        )
        if self.status:
            connection.sendall(reply)
            return
        fd = self._region(region_bytes) if self.kept < 0 else os.dup(self.kept)
        if self.again and self.kept < 0:
            self.kept = os.dup(fd)
        try:
            self._attach(fd, region_bytes)
            socket.send_fds(connection, [reply], [fd] * self.descriptors)
        finally:
            os.close(fd)

    def _attach(self, fd: int, region_bytes: int) -> None:
        region = mmap.mmap(fd, 4096)
        region[STATE_OFFSET : STATE_OFFSET + 4] = struct.pack("<I", STARTING)
        self.regions.append(region)
        self.children.append(
            subprocess.Popen([self.enclave, str(fd), str(region_bytes), self.mode], pass_fds=[fd])
        )
        end = time.monotonic() + ATTACH_SECONDS
        while region[STATE_OFFSET] != READY and time.monotonic() < end:
            time.sleep(0.001)

    def _region(self, region_bytes: int) -> int:
        fd = os.memfd_create("channel", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, region_bytes + self.size_off)
        header = HEADER.pack(
            CHANNEL_MAGIC, ABI_VERSION, self.slots, self.slot_bytes, self.bulk_bytes, region_bytes
        )
        os.pwrite(fd, self.edit_header(header), 0)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, self.seals)
        return fd


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def _receive(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        try:
            part = connection.recv(count - len(data))
        except OSError:
            return b""
        if not part:
            return b""
        data += part
    return data


@pytest.fixture
def agent(tmp_path: Path, plain: Built) -> Iterator[FakeAgent]:
    """Play a well-behaved agent with the plain enclave; tests change its attributes before they call."""
    with FakeAgent(tmp_path / "agent.sock", plain.enclave) as fake:
        yield fake


@pytest.fixture
def make_agent(tmp_path: Path) -> Iterator[Callable[..., FakeAgent]]:
    """More agents, with what they are given."""
    started: list[FakeAgent] = []

    def make(enclave: Path, path: Path = tmp_path / "made.sock", **settings: object) -> FakeAgent:
        fake = FakeAgent(path, enclave, **settings)  # type: ignore[arg-type]
        started.append(fake.__enter__())
        return fake

    yield make
    for fake in started:
        fake.stop()


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a program whose library looks for the given agent."""

    def start(
        agent: FakeAgent | None, *command: str | Path, seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "nobody.sock" if agent is None else agent.path
        environment = os.environ | {"CAFE_SOCKET": str(path)}
        return subprocess.run(
            [str(part) for part in command],
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    return start
