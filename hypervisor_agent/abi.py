"""The parts of cafe_abi.h that the agent speaks, as Python: statuses, channel, boot page, VMM messages.

Source: ``cafe_lib/include/cafe_abi.h``; a test compiles that header and compares every offset and value.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from enum import IntEnum
from operator import attrgetter
from typing import Final

from cafe_lib.errors import LimitError, MalformedError, VersionError

ABI_VERSION: Final = 1
PAGE: Final = 4096

CHANNEL_MAGIC: Final = 0x314E484345464143
CHANNEL_HEADER_BYTES: Final = 4096
CHANNEL_HEADER: Final = struct.Struct("<QIIQQ")
CHANNEL_STATE: Final = 64
CHANNEL_STATUS: Final = 68
CHANNEL_SLEEPING: Final = 72
CHANNEL_BELL: Final = 128
MAX_SLOTS: Final = 64
MIN_SLOT_BYTES: Final = 4096
MAX_SLOT_BYTES: Final = 64 << 20
SLOT_REPLY: Final = 0
SLOT_REQUEST: Final = 64

CONFIG_MAGIC: Final = 0x31474643454D4D56
VMM_FD: Final = 3
VECTOR_UNKNOWN: Final = 0xFFFFFFFF
_CONFIG: Final = struct.Struct("<QII12Q4I5Q")
_EVENT: Final = struct.Struct("<IIQQQII")
EVENT_BYTES: Final = _EVENT.size
CONFIG_BYTES: Final = _CONFIG.size

BOOT_MAGIC: Final = 0x31544F4F42454643
BOOT: Final = struct.Struct("<QII10Q32s")
BOOT_SEED_OFFSET: Final = 96
BOOT_SEED_BYTES: Final = 32
MONITOR: Final = struct.Struct("<QQQ")

PORT: Final = 0x10


class Status(IntEnum):
    """``enum cafe_status``."""

    OK = 0
    MALFORMED = 1
    LIMIT = 2
    ENTRY = 3
    FAULT = 4
    DEADLINE = 5
    EXITED = 6
    ABORT = 7
    AGENT = 8
    REFUSED = 9
    LICENCE = 10
    VERSION = 11
    NOT_FOUND = 12
    HOST = 13
    REVOKED = 14
    TRANSPORT = 15


class ChannelState(IntEnum):
    """``enum cafe_channel_state``."""

    STARTING = 0
    READY = 1
    DEAD = 2


class Exit(IntEnum):
    """``enum cafe_exit``: why the enclave left through the port."""

    READY = 1
    IDLE = 2
    WAKE = 3
    ABORT = 4


class EventKind(IntEnum):
    """``enum vmm_event_kind``."""

    READY = 1
    FAULT = 2
    DEADLINE = 3
    ABORT = 4
    HOST = 5


@dataclass(frozen=True, slots=True)
class VmmConfig:
    """``struct vmm_config`` without magic and version; the fields' order is that of the structure."""

    isa: int
    memory_bytes: int
    channel_bytes: int
    channel_gpa: int
    monitor_gpa: int
    cr3: int
    rip: int
    rsp: int
    rdi: int
    fs_base: int
    gdt_base: int
    idt_base: int
    tss_base: int
    gdt_limit: int
    idt_limit: int
    tss_limit: int
    slot_count: int
    slot_bytes: int
    deadline_ns: int
    fault_stack: int
    fault_handler: int
    fault_stack_gpa: int

    def pack(self) -> bytes:
        """Return the structure's bytes."""
        return _CONFIG.pack(CONFIG_MAGIC, ABI_VERSION, *_config_values(self))


_config_values: Final = attrgetter(*(field.name for field in fields(VmmConfig)))


def parse_config(data: bytes) -> VmmConfig:
    """Parse ``struct vmm_config``; the values are not judged.

    :raises MalformedError: another length or magic number.
    :raises VersionError: another ABI version.
    """
    if len(data) != _CONFIG.size:
        raise MalformedError(f"a VMM configuration of {len(data)} bytes")
    magic, version, *values = _CONFIG.unpack(data)
    if magic != CONFIG_MAGIC:
        raise MalformedError("not a VMM configuration")
    if version != ABI_VERSION:
        raise VersionError(f"ABI version {version}")
    return VmmConfig(*values)


@dataclass(frozen=True, slots=True)
class VmmEvent:
    """``struct vmm_event``: what a VMM reports."""

    kind: EventKind
    vector: int = 0
    error_code: int = 0
    rip: int = 0
    address: int = 0
    status: int = 0

    def pack(self) -> bytes:
        """Return the structure's bytes."""
        return _EVENT.pack(*_event_values(self), 0)


_event_values: Final = attrgetter(*(field.name for field in fields(VmmEvent)))


def parse_event(data: bytes) -> VmmEvent:
    """Parse ``struct vmm_event``.

    :raises MalformedError: another length, kind or trailing word.
    """
    if len(data) != _EVENT.size:
        raise MalformedError(f"a VMM event of {len(data)} bytes")
    kind, *values, zero = _EVENT.unpack(data)
    if zero or kind not in set(EventKind):
        raise MalformedError(f"a VMM event of kind {kind}")
    return VmmEvent(EventKind(kind), *values)


def channel_bytes(slot_count: int, slot_bytes: int) -> int:
    """Return the length of a channel region in bytes.

    :raises LimitError: count or size out of their bounds, or a size that is not a multiple of a page.
    """
    if not 1 <= slot_count <= MAX_SLOTS:
        raise LimitError(f"a channel of {slot_count} slots")
    if not MIN_SLOT_BYTES <= slot_bytes <= MAX_SLOT_BYTES or slot_bytes % PAGE:
        raise LimitError(f"slots of {slot_bytes} bytes")
    return CHANNEL_HEADER_BYTES + slot_count * slot_bytes
