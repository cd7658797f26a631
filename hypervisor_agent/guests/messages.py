"""The fixed control messages of cafe_abi.h. What comes from a guest is hostile."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cafe_lib.errors import MalformedError, VersionError
from hypervisor_agent.abi import ABI_VERSION, Status

CONTROL_MAGIC = 0x314C4743
MESSAGE_CHARS = 104

_REQUEST = struct.Struct("<IIQ32s32s")
_REPLY = struct.Struct("<IIQQ104s")
REQUEST_BYTES = _REQUEST.size
REPLY_BYTES = _REPLY.size


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """``struct cafe_launch_request``."""

    number: int
    secret_binary_id: bytes
    interface_digest: bytes

    @classmethod
    def parse(cls, data: bytes) -> LaunchRequest:
        """Parse exactly one request; raises MalformedError, or VersionError for another ABI."""
        if len(data) != REQUEST_BYTES:
            raise MalformedError(f"a launch request has {REQUEST_BYTES} bytes, not {len(data)}")
        magic, abi_version, number, secret_binary_id, interface_digest = _REQUEST.unpack(data)
        if magic != CONTROL_MAGIC:
            raise MalformedError("not a launch request")
        if abi_version != ABI_VERSION:
            raise VersionError(
                f"the program speaks ABI {abi_version}, this agent {ABI_VERSION}",
                hint="rebuild the program with the cafe release of this host",
            )
        return cls(number, secret_binary_id, interface_digest)

    def encode(self) -> bytes:
        """Return the wire form, for a guest written in Python."""
        return _REQUEST.pack(
            CONTROL_MAGIC, ABI_VERSION, self.number, self.secret_binary_id, self.interface_digest
        )


@dataclass(frozen=True, slots=True)
class LaunchReply:
    """``struct cafe_launch_reply``. ``message`` is cut to what fits."""

    number: int
    status: Status
    region_bytes: int = 0
    message: str = ""

    def encode(self) -> bytes:
        """Return the wire form; the message always ends in a NUL."""
        text = self.message.encode()[: MESSAGE_CHARS - 1].decode(errors="ignore").encode()
        return _REPLY.pack(CONTROL_MAGIC, self.status, self.number, self.region_bytes, text)

    @classmethod
    def parse(cls, data: bytes) -> LaunchReply:
        """Parse exactly one reply; raises MalformedError."""
        if len(data) != REPLY_BYTES:
            raise MalformedError(f"a launch reply has {REPLY_BYTES} bytes, not {len(data)}")
        magic, status, number, region_bytes, text = _REPLY.unpack(data)
        if magic != CONTROL_MAGIC or status > max(Status) or b"\0" not in text:
            raise MalformedError("not a launch reply")
        return cls(number, Status(status), region_bytes, text.split(b"\0")[0].decode(errors="replace"))
