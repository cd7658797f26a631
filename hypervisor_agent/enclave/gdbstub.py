"""A session with gdb: what each packet is answered with. Pure: the machine is a port, the socket elsewhere.

Source: the GDB manual, "Remote Protocol" (Packets, Stop Reply Packets, General Query Packets).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from cafe_lib.errors import MalformedError
from hypervisor_agent.enclave.gdbpacket import (
    MAX_PACKET_BYTES,
    REGISTERS,
    escape,
    parse_bytes,
    parse_hex,
    parse_range,
    target_description,
)

SIGINT, SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGSEGV = 2, 4, 5, 6, 8, 11
OK: Final = b"OK"
_BAD_ARGUMENT: Final = b"E16"
_BAD_ADDRESS: Final = b"E0e"
_FIRST_SEGMENT: Final = 4096  # of image.elf, behind the page that image.ld keeps for the flat image's header
_MAX_BREAKPOINTS: Final = 1024
_FEATURES: Final = (
    b"PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;swbreak+;hwbreak+;vContSupported+"
    % MAX_PACKET_BYTES
)
_ALL_THREADS: Final = (b"", b"-1", b"0")
_MONITOR_HELP: Final = (
    "base: where the image lies; for gdb: add-symbol-file build/secret/image.elf -o ADDRESS\n"
)


class Machine(Protocol):
    """A stopped machine. Threads are numbered from 1: vCPU 0 is thread 1."""

    @property
    def image_base(self) -> int:
        """Where the secret image lies."""
        ...

    @property
    def threads(self) -> int:
        """How many there are."""
        ...

    def read_register(self, thread: int, name: str) -> int | None:
        """Return a register of REGISTERS; None if there is no such."""
        ...

    def write_register(self, thread: int, name: str, value: int) -> bool:
        """Change a register; false if that cannot be done."""
        ...

    def read_memory(self, address: int, size: int) -> bytes:
        """Return what is mapped from ``address`` on, at most ``size`` bytes; b"" if nothing is."""
        ...

    def write_memory(self, address: int, data: bytes) -> bool:
        """Change memory whatever its rights; false if it is not mapped."""
        ...


@dataclass(frozen=True, slots=True)
class Stop:
    """Why the machine stands."""

    signal: int
    thread: int = 1
    breakpoint: bool = False

    def encode(self) -> bytes:
        """Return the stop reply."""
        reason = b"swbreak:;" if self.breakpoint else b""
        return b"T%02xthread:%x;%b" % (self.signal, self.thread, reason)


class Then(Enum):
    """What happens after an answer was sent."""

    STAY = 0
    RESUME = 1
    DETACH = 2
    KILL = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """``text`` None: nothing is sent (yet). ``step``: the thread that makes one step; ``others`` may run."""

    text: bytes | None
    then: Then = Then.STAY
    step: int | None = None
    others: bool = True


class GdbSession:
    """One gdb from its connection to its end. ``breakpoints`` is for the machine to read."""

    def __init__(self, machine: Machine, stop: Stop) -> None:
        self._machine = machine
        self._selected = 1
        self._continued: int | None = None
        self.stop = stop
        self.no_ack = False
        self.breakpoints: frozenset[int] = frozenset()
        self._by_kind: dict[int, set[int]] = {0: set(), 1: set()}
        self._questions: dict[bytes, Callable[[bytes], bytes]] = {
            b"Supported": lambda _: _FEATURES,
            b"ThreadExtraInfo,": self._thread_name,
            b"Xfer:features:read:target.xml:": lambda text: _piece(target_description(), text),
            b"Rcmd,": lambda text: self._monitor(parse_bytes(text).strip()),
        }
        self._commands: dict[bytes, Callable[[bytes], Answer | bytes]] = {
            b"?": lambda _: self.stop.encode(),
            b"g": lambda _: self._read_registers(),
            b"G": self._write_registers,
            b"p": self._read_register,
            b"P": self._write_register,
            b"m": self._read_memory,
            b"M": self._write_memory,
            b"H": self._select,
            b"T": lambda text: OK if self._thread(text) else _BAD_ARGUMENT,
            b"Z": lambda text: self._breakpoint(text, add=True),
            b"z": lambda text: self._breakpoint(text, add=False),
            b"c": lambda text: self._resume(text, step=False),
            b"s": lambda text: self._resume(text, step=True),
            b"C": lambda text: self._resume(text.partition(b";")[2], step=False),
            b"S": lambda text: self._resume(text.partition(b";")[2], step=True),
            b"D": lambda _: Answer(OK, Then.DETACH),
            b"k": lambda _: Answer(None, Then.KILL),
            b"q": self._query,
            b"Q": self._set,
            b"v": self._named,
        }

    def stopped(self, stop: Stop) -> bytes:
        """Take note that the machine stands again; return the stop reply."""
        self.stop, self._selected = stop, stop.thread
        return stop.encode()

    def answer(self, packet: bytes) -> Answer:
        """Answer one packet; what is not known gets the empty answer, what is wrong an error."""
        command = self._commands.get(packet[:1])
        if command is None:
            return Answer(b"")
        try:
            answer = command(packet[1:])
        except MalformedError:
            return Answer(_BAD_ARGUMENT)
        return answer if isinstance(answer, Answer) else Answer(answer)

    # -------------------------------------------------------------- registers and memory

    def _read_registers(self) -> bytes:
        return b"".join(self._register_text(number) for number in range(len(REGISTERS)))

    def _register_text(self, number: int) -> bytes:
        register = REGISTERS[number]
        value = self._machine.read_register(self._selected, register.name)
        if value is None:
            return b"xx" * register.size
        return (value & ((1 << register.bits) - 1)).to_bytes(register.size, "little").hex().encode()

    def _write_registers(self, text: bytes) -> bytes:
        data = parse_bytes(text)
        if len(data) > sum(register.size for register in REGISTERS):
            raise MalformedError("more registers than there are")
        place = 0
        for register in REGISTERS:
            value = data[place : place + register.size]
            place += register.size
            if len(value) == register.size:
                self._machine.write_register(self._selected, register.name, int.from_bytes(value, "little"))
        return OK

    def _read_register(self, text: bytes) -> bytes:
        number = parse_hex(text)
        return self._register_text(number) if number < len(REGISTERS) else _BAD_ARGUMENT

    def _write_register(self, text: bytes) -> bytes:
        number, _, value = text.partition(b"=")
        index, data = parse_hex(number), parse_bytes(value)
        if index >= len(REGISTERS) or len(data) != REGISTERS[index].size:
            return _BAD_ARGUMENT
        name = REGISTERS[index].name
        done = self._machine.write_register(self._selected, name, int.from_bytes(data, "little"))
        return OK if done else _BAD_ARGUMENT

    def _read_memory(self, text: bytes) -> bytes:
        address, size = parse_range(text)
        data = self._machine.read_memory(address, size) if size else b""
        return data.hex().encode() if data or not size else _BAD_ADDRESS

    def _write_memory(self, text: bytes) -> bytes:
        where, _, contents = text.partition(b":")
        (address, size), data = parse_range(where), parse_bytes(contents)
        if len(data) != size:
            return _BAD_ARGUMENT
        return OK if not data or self._machine.write_memory(address, data) else _BAD_ADDRESS

    # -------------------------------------------------------------- what runs, and to where

    def _thread(self, text: bytes) -> int:
        """Return a thread's number, 0 if there is no such."""
        number = parse_hex(text)
        return number if number <= self._machine.threads else 0

    def _select(self, text: bytes) -> bytes:
        operation, thread = text[:1], text[1:]
        number = None if thread in _ALL_THREADS else self._thread(thread)
        if number == 0 or operation not in (b"g", b"c"):
            return _BAD_ARGUMENT
        if operation == b"g":
            self._selected = number or self.stop.thread
        else:
            self._continued = number
        return OK

    def _breakpoint(self, text: bytes, *, add: bool) -> bytes:
        kind, _, rest = text.partition(b",")
        if kind not in (b"0", b"1"):
            return b""  # watchpoints: gdb steps instead
        address, _ = parse_range(rest.partition(b";")[0])
        places = self._by_kind[int(kind)]
        if not add:
            places.discard(address)
        elif len(places) < _MAX_BREAKPOINTS:
            places.add(address)
        else:
            return _BAD_ARGUMENT
        self.breakpoints = frozenset(set().union(*self._by_kind.values()))
        return OK

    def _resume(self, text: bytes, *, step: bool) -> Answer | bytes:
        thread = self._continued or self.stop.thread
        if text and not self._machine.write_register(thread, "rip", parse_hex(text)):
            return _BAD_ADDRESS
        return Answer(None, Then.RESUME, thread if step else None)

    def _named(self, text: bytes) -> Answer | bytes:
        if text == b"Cont?":
            return b"vCont;c;C;s;S"
        if text.startswith(b"Cont;"):
            return self._vcont(text.split(b";")[1:])
        if text.startswith(b"Kill"):
            return Answer(OK, Then.KILL)
        return b""

    def _vcont(self, actions: list[bytes]) -> Answer | bytes:
        """Take the first action that steps; threads without an action stay where they are."""
        step, all_run = None, False
        for action in actions:
            verb, _, thread = action.partition(b":")
            if verb[:1] not in (b"c", b"C", b"s", b"S"):
                raise MalformedError("no such action")
            number = None if thread in _ALL_THREADS else self._thread(thread)
            if number == 0:
                return _BAD_ARGUMENT
            if verb[:1] in (b"s", b"S") and step is None:
                step = number or self.stop.thread
            all_run = all_run or (verb[:1] in (b"c", b"C") and number is None)
        return Answer(None, Then.RESUME, step, all_run or step is None)

    # -------------------------------------------------------------- questions

    def _query(self, text: bytes) -> bytes:
        fixed = {
            b"Attached": b"1",
            b"C": b"QC%x" % self.stop.thread,
            b"fThreadInfo": b"m" + b",".join(b"%x" % (n + 1) for n in range(self._machine.threads)),
            b"sThreadInfo": b"l",
            b"Offsets": b"TextSeg=%x" % (self._machine.image_base + _FIRST_SEGMENT),
        }
        if text in fixed:
            return fixed[text]
        for prefix, answer in self._questions.items():
            if text.startswith(prefix):
                return answer(text[len(prefix) :])
        return b""

    def _thread_name(self, text: bytes) -> bytes:
        number = self._thread(text)
        return f"vCPU {number - 1}".encode().hex().encode() if number else _BAD_ARGUMENT

    def _set(self, text: bytes) -> bytes:
        if text != b"StartNoAckMode":
            return b""
        self.no_ack = True
        return OK

    def _monitor(self, command: bytes) -> bytes:
        said = f"{self._machine.image_base:#x}\n" if command == b"base" else _MONITOR_HELP
        return said.encode().hex().encode()


def _piece(document: bytes, where: bytes) -> bytes:
    offset, size = parse_range(where)
    part = document[offset : offset + min(size, MAX_PACKET_BYTES // 4)]
    return (b"m" if offset + len(part) < len(document) else b"l") + escape(part)
