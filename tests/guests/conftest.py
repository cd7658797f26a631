"""A hand-made secret image, and enclaves that run it on both backends."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cafe_lib.image.confidential import Confidential, encrypt_chunk
from cafe_lib.image.manifest import Manifest
from cafe_lib.wire.limits import CHUNK_BYTES
from hypervisor_agent import abi
from hypervisor_agent.enclave.backend import choose_backend
from hypervisor_agent.enclave.channel import Channel
from hypervisor_agent.enclave.enclave import Enclave
from hypervisor_agent.enclave.futex import futex_wait, futex_wake
from hypervisor_agent.enclave.process import SparePool
from hypervisor_agent.loader.load import ImageLoader
from hypervisor_agent.plan import EnclavePlan

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VMM_SOURCES = ROOT / "hypervisor_agent" / "vmm"
SLOT = abi.CHANNEL_HEADER_BYTES
FRAME = SLOT + abi.SLOT_FRAME


@dataclass(frozen=True)
class Probe:
    """The image of probe.S, its symbols, and how to load it."""

    plain: bytes
    symbols: dict[str, int]
    entries: dict[str, int]

    def manifest(self, image: bytes, **fields: object) -> Manifest:
        chunks = [encrypt_chunk(b"s" * 32, image[at : at + CHUNK_BYTES])[0] for at in self.starts(image)]
        usual = {
            "name": "probe",
            "version": "1",
            "publisher": bytes(32),
            "build_mode": 2,
            "abi_version": abi.ABI_VERSION,
            "isa": 2,
            "interface_digest": bytes(32),
            "stack_bytes": 65536,
            "heap_bytes": 1 << 20,
            "slot_count": 2,
            "slot_bytes": 65536,
            "vcpu_count": 1,
            "bulk_bytes": 0,
            "deadline_ms": 300,
            "image_bytes": len(image),
            "chunk_names": tuple(chunks),
            "confidential_digest": bytes(32),
        }
        return Manifest(**{**usual, **fields})

    @staticmethod
    def starts(image: bytes) -> range:
        return range(0, len(image), CHUNK_BYTES)

    def sealed(self, image: bytes) -> tuple[Confidential, list[bytes]]:
        """Return keys and ciphertexts."""
        parts = [encrypt_chunk(b"s" * 32, image[at : at + CHUNK_BYTES]) for at in self.starts(image)]
        confidential = Confidential(bytes(32), tuple(p[1] for p in parts), tuple(p[2] for p in parts))
        return confidential, [part[3] for part in parts]

    def loader(self, image: bytes | None = None, **fields: object) -> tuple[ImageLoader, list[bytes]]:
        image = self.plain if image is None else image
        confidential, ciphertexts = self.sealed(image)
        return ImageLoader(self.manifest(image, **fields), confidential), ciphertexts

    def plan(self, image: bytes | None = None, **fields: object) -> EnclavePlan:
        loader, ciphertexts = self.loader(image, **fields)
        try:
            for index, ciphertext in enumerate(ciphertexts):
                loader.take_chunk(index, ciphertext)
            return loader.finish()
        except BaseException:
            loader.discard()
            raise


class Caller:
    """A guest process: calls entries of the probe through slot 0 of its channel, as libcafe would."""

    def __init__(self, channel: Channel, entries: dict[str, int], region: int = 0) -> None:
        self.channel, self.region = channel, region
        self._entries = entries
        self._map = mmap.mmap(channel.fd, channel.size)
        self._words = memoryview(self._map).cast("I")  # one store each; struct.pack_into writes zeros first
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def word(self, offset: int) -> int:
        return self._words[offset // 4]

    def put(self, offset: int, value: int) -> None:
        self._words[offset // 4] = value

    def read(self, offset: int, size: int) -> bytes:
        return self._map[offset : offset + size]

    def write(self, offset: int, data: bytes) -> None:
        self._map[offset : offset + len(data)] = data

    @property
    def dead(self) -> abi.Status | None:
        """The status once the channel is dead."""
        if self.word(abi.CHANNEL_STATE) != abi.ChannelState.DEAD:
            return None
        return abi.Status(self.word(abi.CHANNEL_STATUS))

    def request(self, entry: str, *arguments: int) -> int:
        """Publish a call without waiting for it, and return its number."""
        self.write(FRAME, struct.pack("<2Q", *(*arguments, 0, 0)[:2]))
        self.put(SLOT + abi.SLOT_ENTRY, self._entries[entry])
        self.put(SLOT + abi.SLOT_WAITING, 1)
        number = (self.word(SLOT + abi.SLOT_REQUEST) + 1) & 0xFFFFFFFF
        self.put(SLOT + abi.SLOT_REQUEST, number)
        futex_wake(self._address + SLOT + abi.SLOT_REQUEST)  # nobody waits there: a system call as full fence
        if self.word(abi.CHANNEL_SLEEPING):
            self.ring()
        return number

    def ring(self) -> None:
        """Wake the enclave."""
        self.put(abi.CHANNEL_BELL, (self.word(abi.CHANNEL_BELL) + 1) & 0xFFFFFFFF)
        futex_wake(self._address + abi.CHANNEL_BELL)

    def call(self, entry: str, *arguments: int, seconds: float = 10.0) -> int | abi.Status:
        """Return the result, or the status if the enclave ended."""
        return self.answer(self.request(entry, *arguments), seconds)

    def answer(self, number: int, seconds: float = 10.0) -> int | abi.Status:
        """Wait for the answer to a request."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            reply = self.word(SLOT + abi.SLOT_REPLY)
            if reply == number:
                return int.from_bytes(self.read(SLOT + abi.SLOT_RESULT, 8), "little")
            if (status := self.dead) is not None:
                return status
            futex_wait(self._address + SLOT + abi.SLOT_REPLY, reply, 0.2)
        raise TimeoutError(f"no answer to request {number}")


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    """Assemble probe.S and link it flat."""
    folder = tmp_path_factory.mktemp("probe")
    names = {name: str(folder / name) for name in ("probe.o", "probe.elf", "probe.bin")}
    commands = (
        ["gcc", "-c", "-Wa,--noexecstack", str(HERE / "probe.S"), "-o", names["probe.o"]],
        ["ld", "-T", str(HERE / "flat.ld"), names["probe.o"], "-o", names["probe.elf"]],
        ["objcopy", "-O", "binary", "-R", ".bss", names["probe.elf"], names["probe.bin"]],
    )
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    listing = subprocess.run(["nm", names["probe.elf"]], check=True, capture_output=True, text=True).stdout
    symbols = {line.split()[2]: int(line.split()[0], 16) for line in listing.splitlines()}
    plain = Path(names["probe.bin"]).read_bytes()
    count = (symbols["exports_end"] - symbols["exports"]) // 4
    offsets = struct.unpack_from(f"<{count}I", plain, symbols["exports"])
    entries = {name: offsets.index(value) for name, value in symbols.items() if value in offsets}
    return Probe(plain, symbols, entries)


@pytest.fixture(scope="session")
def vmm() -> Path:
    """Build the VMM."""
    subprocess.run(["make", "-s", "-C", str(VMM_SOURCES)], check=True)
    return ROOT / "hypervisor_agent" / "native" / "cafe-vmm"


@pytest.fixture(scope="session", params=["kvm", "emulator"])
def pool(request: pytest.FixtureRequest) -> Iterator[SparePool]:
    """Spare processes of each backend."""
    if request.param == "kvm":
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            pytest.skip("this machine has no /dev/kvm that we may open")
        request.getfixturevalue("vmm")
    spares = SparePool(choose_backend(request.param))
    yield spares
    spares.close()


Connect = Callable[..., Caller]


@pytest.fixture
def connect(probe: Probe) -> Iterator[Connect]:
    """Give an enclave one more guest process; its channel is closed at the end of the test."""
    channels: list[Channel] = []

    def attach(enclave: Enclave) -> Caller:
        channels.append(Channel(*enclave.channel_size))
        return Caller(channels[-1], probe.entries, enclave.attach(channels[-1]))

    yield attach
    for channel in channels:
        channel.close()


@pytest.fixture
def guest_of(probe: Probe) -> Callable[[Channel], Caller]:
    """Play the guest process of a channel, whoever attaches that."""
    return lambda channel: Caller(channel, probe.entries)


Launch = Callable[..., tuple[Enclave, Caller]]


@contextmanager
def launching(probe: Probe, pool: SparePool, connect: Connect) -> Iterator[Launch]:
    """Start enclaves that run the probe, with a guest each; they are destroyed at the end."""
    started: list[Enclave] = []

    def start(plan: EnclavePlan | None = None, **fields: object) -> tuple[Enclave, Caller]:
        enclave = Enclave.start(plan or probe.plan(**fields), pool)
        started.append(enclave)
        return enclave, connect(enclave)

    try:
        yield start
    finally:
        for enclave in started:
            enclave.destroy()


@pytest.fixture
def launch(probe: Probe, pool: SparePool, connect: Connect) -> Iterator[Launch]:
    """Start enclaves on each backend."""
    with launching(probe, pool, connect) as start:
        yield start


@pytest.fixture(scope="session")
def kvm_pool(vmm: Path) -> Iterator[SparePool]:
    """Spare processes under KVM, whatever other tests run on."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("this machine has no /dev/kvm that we may open")
    spares = SparePool(choose_backend("kvm"))
    yield spares
    spares.close()


@pytest.fixture
def kvm_launch(probe: Probe, kvm_pool: SparePool, connect: Connect) -> Iterator[Launch]:
    """Start enclaves under KVM: the emulator runs one vCPU only."""
    with launching(probe, kvm_pool, connect) as start:
        yield start


@pytest.fixture
def kvm_enclave(kvm_launch: Launch) -> Enclave:
    """Start one enclave under KVM."""
    return kvm_launch()[0]


@pytest.fixture
def good_config(probe: Probe) -> abi.VmmConfig:
    """Return a configuration that a VMM accepts; its memory is gone already."""
    plan = probe.plan()
    plan.memory.wipe()
    return replace(plan.config)
