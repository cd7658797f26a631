"""Revocations, pushed as frames: u32 big-endian length, then a SignedMessage; length 0 keeps alive."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from cafe_lib.errors import LimitError, MalformedError
from cafe_lib.wire import limits
from cafe_lib.wire.envelope import MacBody, SignedBody
from cafe_lib.wire.schema import Blob, Id, Items, Text, Uint64

KINDS: Final = ("licence", "release", "host", "lease")
KEEP_ALIVE: Final = b"\0\0\0\0"
_LENGTH: Final = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class EventsRequest(MacBody):
    """Host to SBS, under the client key: events numbered above `after`, and all to come."""

    KIND: ClassVar[int] = 64
    LABEL: ClassVar[str] = "events request"

    session_id: Id
    after: Uint64


@dataclass(frozen=True, slots=True)
class Revocation(SignedBody):
    """SBS to host, signed by the certified key: end these leases. `secret_binary_id` may be empty."""

    KIND: ClassVar[int] = 65
    LABEL: ClassVar[str] = "revocation"

    number: Uint64
    host_id: Id
    kind: Annotated[str, Text(1, limits.MAX_NAME_BYTES, "|".join(KINDS))]
    lease_ids: Annotated[tuple[bytes, ...], Items(Blob(16, 16), limits.MAX_LEASES)]
    secret_binary_id: Annotated[bytes, Blob(0, 32)]


def encode_frame(message: bytes) -> bytes:
    """Frame one SignedMessage; raises LimitError."""
    if not 0 < len(message) <= limits.MAX_EVENT_BYTES:
        raise LimitError("an event is empty or too long")
    return _LENGTH.pack(len(message)) + message


class FrameReader:
    """Cuts the stream into messages, whatever the pieces it arrives in; keep-alives are dropped."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield each complete message; raises LimitError at a frame that is too long."""
        self._rest += data
        while len(self._rest) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._rest)
            if length > limits.MAX_EVENT_BYTES:
                raise LimitError(f"an event of {length} bytes")
            end = _LENGTH.size + length
            if len(self._rest) < end:
                return
            message = bytes(self._rest[_LENGTH.size : end])
            del self._rest[:end]
            if message:
                yield message

    def finish(self) -> None:
        """Say that the stream has ended; raises MalformedError inside a frame."""
        if self._rest:
            raise MalformedError("the event stream ended inside a frame")
