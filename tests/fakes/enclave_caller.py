"""The guest's side of a channel in Python, after cafe_abi.h: calls the functions of a started enclave."""

from __future__ import annotations

import ctypes
import mmap
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cafe_lib.interface.layout import OUT_ALIGN, fixed_part, result_in_slot, round_up
from cafe_lib.interface.model import Carry, Function, Kind, Shape
from cafe_lib.toolchain.build import BuildResult
from hypervisor_agent.abi import (
    CALLBACK,
    CHANNEL_BELL,
    CHANNEL_HEADER_BYTES,
    CHANNEL_SLEEPING,
    ENTRY_RETURN,
    SLOT_RETURNED,
    Status,
)
from hypervisor_agent.enclave.channel import Channel
from hypervisor_agent.enclave.enclave import Enclave
from hypervisor_agent.enclave.futex import futex_wake
from hypervisor_agent.enclave.outcome import Outcome

FRAME, RESULT, STATUS, REQUEST, ENTRY = 80, 8, 4, 64, 68
CALL_SECONDS = 20
Value = int | float | bytes


@dataclass(frozen=True)
class Reply:
    """What came back: ``value`` of the result, ``outs`` by parameter name."""

    status: Status
    value: Any  # an int, a float, or the bytes of a struct
    outs: dict[str, bytes]


class Caller:
    """A started enclave and the guest's side of a channel to it."""

    def __init__(self, built: BuildResult, enclave: Enclave) -> None:
        self.built, self.enclave = built, enclave
        self.channel = Channel(*enclave.channel_size)
        self.region = enclave.attach(self.channel)
        self.map = mmap.mmap(self.channel.fd, self.channel.size)
        self.words = memoryview(self.map).cast("I")  # one store each; struct.pack_into writes zeros first
        self.on_callback: Callable[[int], int] | None = None
        """Plays the public program: gets the slot, writes results there, returns the word for `returned`."""

    def call(self, name: str, *values: Value, slot: int = 0) -> Reply:
        """Call a function: numbers for scalars, bytes for buffers in, a length for buffers out."""
        index = self.index(name)
        function = self.built.interface.functions[index]
        frame, outs = lay_out(function, values)
        base = self.base(slot)
        self.put(frame, slot)
        status = self.request(index, slot)
        found = {param: bytes(self.map[base + at : base + at + size]) for param, (at, size) in outs.items()}
        return Reply(status, self._result(function, base, found), found)

    def base(self, slot: int) -> int:
        return CHANNEL_HEADER_BYTES + slot * self.built.manifest.slot_bytes

    def word(self, offset: int) -> int:
        return self.words[offset // 4]

    def close(self) -> None:
        """Destroy the enclave and close the channel."""
        self.enclave.destroy()
        self.words.release()
        self.map.close()
        self.channel.close()

    def request(self, entry: int, slot: int = 0, *, ahead: int = 1) -> Status:
        """Publish a request and wait for its answer, or the enclave's end; serve its callbacks meanwhile."""
        word = self.publish(entry, slot, ahead=ahead)
        while word == CALLBACK:
            assert self.on_callback is not None, "a callback that the test did not expect"
            word = self.give_back(self.on_callback(slot), slot)
        return Status(word & 0xFFFF)  # the rest is errno

    def give_back(self, returned: int, slot: int = 0, *, ahead: int = 1) -> int:
        """Return from a callback, with the word that says how; return the next answer's status word."""
        self.words[(self.base(slot) + SLOT_RETURNED) // 4] = returned
        return self.publish(ENTRY_RETURN, slot, ahead=ahead)

    def publish(self, entry: int, slot: int = 0, *, ahead: int = 1) -> int:
        """Publish a request; return its answer's status word, or the status of the enclave's end."""
        return self.answer(self.ask(entry, slot, ahead=ahead), slot)

    def ask(self, entry: int, slot: int = 0, *, ahead: int = 1) -> int:
        """Publish a request without waiting for it; return its number."""
        base = self.base(slot)
        number = (self.word(base) + ahead) & 0xFFFFFFFF
        self.words[(base + ENTRY) // 4] = entry
        self.words[(base + REQUEST) // 4] = number
        return number

    def answer(self, number: int, slot: int = 0) -> int:
        """Wait for an answer; return its status word, or the status of the enclave's end."""
        base, end = self.base(slot), time.monotonic() + CALL_SECONDS
        while self.word(base) != number:
            if self.word(CHANNEL_SLEEPING):
                self.ring()
            outcome = self.enclave.wait(0)
            if outcome is not None:
                return outcome.status
            assert time.monotonic() < end, "no reply"
        return self.word(base + STATUS)

    def index(self, name: str) -> int:
        """Return a function's number."""
        return next(i for i, f in enumerate(self.built.interface.functions) if f.name == name)

    def put(self, data: bytes, slot: int = 0) -> None:
        """Write a frame."""
        start = self.base(slot) + FRAME
        self.map[start : start + len(data)] = data

    def ring(self) -> None:
        self.words[CHANNEL_BELL // 4] = (self.word(CHANNEL_BELL) + 1) & 0xFFFFFFFF
        anchor = ctypes.c_char.from_buffer(self.map)
        futex_wake(ctypes.addressof(anchor) + CHANNEL_BELL)
        del anchor

    def outcome(self) -> Outcome:
        found = self.enclave.wait(CALL_SECONDS)
        assert found is not None
        return found

    def _result(self, function: Function, base: int, outs: dict[str, bytes]) -> int | float | bytes:
        if function.result is None:
            return 0
        if not result_in_slot(function.result):
            return outs["result"]
        return unpack(function.result, bytes(self.map[base + RESULT : base + RESULT + function.result.size]))


def lay_out(function: Function, values: tuple[Value, ...]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """Write a frame as the ABI says; return it and where outputs will be, from the slot's start."""
    fixed = fixed_part(function)
    frame = bytearray(fixed.size)
    end = FRAME + fixed.size
    outs: dict[str, tuple[int, int]] = {}
    for param, offset, value in zip(function.params, fixed.offsets, values, strict=True):
        if param.carry is Carry.VALUE:
            frame[offset : offset + param.shape.size] = pack(param.shape, value)
            continue
        word = len(value) if param.carry is Carry.STRING and isinstance(value, bytes) else 1
        struct.pack_into("<Q", frame, offset, word)
        if isinstance(value, bytes):
            at = round_up(end, 16)
            frame += bytes(at - end) + value
            end = at + len(value)
            if param.carry is Carry.INOUT:
                outs[param.name] = (at, len(value))
    pairs = zip(function.params, values, strict=True)
    sizes = [(param.name, int(value)) for param, value in pairs if param.carry is Carry.OUT]
    if function.result is not None and not result_in_slot(function.result):
        sizes.append(("result", function.result.size))
    end = round_up(end, OUT_ALIGN)
    for name, size in sizes:
        outs[name] = (round_up(end, 16), size)
        end = outs[name][0] + size
    return bytes(frame), outs


def pack(shape: Shape, value: Value) -> bytes:
    if isinstance(value, bytes):
        return value.ljust(shape.size, b"\0")
    if shape.kind is Kind.FLOATING:
        return struct.pack("<d" if shape.size == 8 else "<f", value)
    return (int(value) & (1 << 8 * shape.size) - 1).to_bytes(shape.size, "little")


def unpack(shape: Shape, data: bytes) -> int | float | bytes:
    if shape.kind is Kind.FLOATING:
        return float(struct.unpack("<d" if shape.size == 8 else "<f", data)[0])
    if shape.kind is Kind.RECORD:
        return data
    return int.from_bytes(data, "little", signed=shape.kind is Kind.SIGNED)
