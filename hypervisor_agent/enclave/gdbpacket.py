"""Packets of GDB's remote serial protocol: framing, checksums, registers as text. Pure.

Source: the GDB manual, "Remote Protocol" (Overview, Packets) and "Standard Target Features".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from cafe_lib.errors import LimitError, MalformedError

MAX_PACKET_BYTES: Final = 16384
"""Of a packet's contents, either way."""
_START, _END, _INTERRUPT = ord("$"), ord("#"), 3
_MAX_HEX: Final = 16


class Sign(Enum):
    """What comes outside of packets."""

    ACK = "+"
    AGAIN = "-"
    """The last answer was damaged: send it once more."""
    INTERRUPT = "\x03"
    DAMAGED = "?"
    """A packet whose checksum is wrong: ask for it once more."""


class PacketReader:
    """Takes bytes as they come, gives packets and signs."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes | Sign]:
        """Yield the contents of each whole packet, and each sign.

        :raises LimitError: a packet over MAX_PACKET_BYTES. The reader is then of no more use.
        """
        self._buffer += data
        while self._buffer:
            first = self._buffer[0]
            if first != _START:
                del self._buffer[0]
                if first in (ord("+"), ord("-"), _INTERRUPT):
                    yield Sign(chr(first))
                continue
            end = self._buffer.find(_END)
            if end > MAX_PACKET_BYTES or (end < 0 and len(self._buffer) > MAX_PACKET_BYTES):
                raise LimitError("a packet of gdb's is too long")
            if end < 0 or len(self._buffer) < end + 3:
                return
            contents, check = bytes(self._buffer[1:end]), bytes(self._buffer[end + 1 : end + 3])
            del self._buffer[: end + 3]
            yield contents if check.lower() == b"%02x" % checksum(contents) else Sign.DAMAGED


def checksum(contents: bytes) -> int:
    """Return the sum modulo 256."""
    return sum(contents) & 0xFF


def encode_packet(contents: bytes) -> bytes:
    """Frame an answer; contents are printable but for escaped bytes (see :func:`escape`)."""
    return b"$%b#%02x" % (contents, checksum(contents))


def escape(data: bytes) -> bytes:
    """Escape what has a meaning of its own in a packet."""
    return b"".join(b"}" + bytes([byte ^ 0x20]) if byte in b"$#}*" else bytes([byte]) for byte in data)


def parse_hex(text: bytes) -> int:
    """Parse a number of 1 to 16 hex digits.

    :raises MalformedError: anything else.
    """
    if not 0 < len(text) <= _MAX_HEX or not all(byte in b"0123456789abcdefABCDEF" for byte in text):
        raise MalformedError("not a number")
    return int(text, 16)


def parse_range(text: bytes) -> tuple[int, int]:
    """Parse `address,length`; the length is cut to what an answer can hold.

    :raises MalformedError: anything else.
    """
    address, comma, length = text.partition(b",")
    if not comma:
        raise MalformedError("an address and a length are needed")
    return parse_hex(address), min(parse_hex(length), MAX_PACKET_BYTES // 2)


def parse_bytes(text: bytes) -> bytes:
    """Parse pairs of hex digits.

    :raises MalformedError: anything else.
    """
    try:
        return bytes.fromhex(text.decode("ascii"))
    except ValueError as error:  # UnicodeDecodeError is one
        raise MalformedError("not pairs of hex digits") from error


@dataclass(frozen=True, slots=True)
class Register:
    """A register of the description, and its place in the packet of all registers."""

    name: str
    bits: int
    kind: str
    feature: str

    @property
    def size(self) -> int:
        """In bytes."""
        return self.bits // 8


def _registers() -> tuple[Register, ...]:
    core, sse, segments = "core", "sse", "segments"
    names = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16))]
    pointers = {"rbp": "data_ptr", "rsp": "data_ptr"}
    found = [Register(name, 64, pointers.get(name, "int64"), core) for name in names]
    found += [Register("rip", 64, "code_ptr", core), Register("eflags", 32, "int32", core)]
    found += [Register(name, 32, "int32", core) for name in ["cs", "ss", "ds", "es", "fs", "gs"]]
    found += [Register(f"st{number}", 80, "i387_ext", core) for number in range(8)]
    found += [
        Register(name, 32, "int", core)
        for name in ["fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"]
    ]
    found += [Register(f"xmm{number}", 128, "xmm", sse) for number in range(16)]
    found += [Register("mxcsr", 32, "int", sse)]
    found += [Register(name, 64, "int", segments) for name in ("fs_base", "gs_base")]
    return tuple(found)


_XMM_TYPE: Final = (
    '<vector id="v4f" type="ieee_single" count="4"/>',
    '<vector id="v2d" type="ieee_double" count="2"/>',
    '<vector id="v16b" type="uint8" count="16"/>',
    '<vector id="v4i" type="uint32" count="4"/>',
    '<union id="xmm">',
    '<field name="v4_float" type="v4f"/>',
    '<field name="v2_double" type="v2d"/>',
    '<field name="v16_int8" type="v16b"/>',
    '<field name="v4_int32" type="v4i"/>',
    '<field name="uint128" type="uint128"/>',
    "</union>",
)
REGISTERS: Final = _registers()
"""In the order of their numbers; sent little-endian."""


def target_description() -> bytes:
    """Return the XML that tells gdb about REGISTERS."""
    parts = ['<?xml version="1.0"?>', '<!DOCTYPE target SYSTEM "gdb-target.dtd">', "<target>"]
    parts.append("<architecture>i386:x86-64</architecture>")
    for feature in dict.fromkeys(register.feature for register in REGISTERS):
        parts.append(f'<feature name="org.gnu.gdb.i386.{feature}">')
        parts += _XMM_TYPE if feature == "sse" else ()
        parts += [
            f'<reg name="{register.name}" bitsize="{register.bits}" type="{register.kind}"/>'
            for register in REGISTERS
            if register.feature == feature
        ]
        parts.append("</feature>")
    return "\n".join([*parts, "</target>", ""]).encode()
