"""The parts of cafe_abi.h that the agent speaks, as Python: statuses, channel, boot page, VMM messages.

Source: ``cafe_lib/include/cafe_abi.h``; a test compiles that header and compares every offset and value.
"""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass, fields
from enum import IntEnum
from operator import attrgetter
from typing import Final

from cafe_lib.errors import LimitError, MalformedError, VersionError

ABI_VERSION: Final = 2
PAGE: Final = 4096

CHANNEL_MAGIC: Final = 0x314E484345464143
CHANNEL_HEADER_BYTES: Final = 4096
CHANNEL_HEADER: Final = struct.Struct("<QIIQQQ")
CHANNEL_STATE: Final = 64
CHANNEL_STATUS: Final = 68
CHANNEL_SLEEPING: Final = 72
CHANNEL_BELL: Final = 128
MAX_SLOTS: Final = 64
MIN_SLOT_BYTES: Final = 4096
MAX_SLOT_BYTES: Final = 64 << 20
BULK_ALIGN: Final = 2 << 20
MAX_BULK_BYTES: Final = 1 << 30
MAX_REGIONS: Final = 16
MAX_VCPUS: Final = 16
SLOT_REPLY: Final = 0
SLOT_STATUS: Final = 4
SLOT_RESULT: Final = 8
SLOT_REQUEST: Final = 64
SLOT_ENTRY: Final = 68
SLOT_WAITING: Final = 72
SLOT_RETURNED: Final = 76
SLOT_FRAME: Final = 80
CALLBACK: Final = 0x100
ENTRY_RETURN: Final = 0xFFFFFFFF
MAX_NESTING: Final = 8

CONFIG_MAGIC: Final = 0x31474643454D4D56
VMM_FD: Final = 3
VECTOR_UNKNOWN: Final = 0xFFFFFFFF
_CONFIG: Final = struct.Struct("<QII5Q6I6Q")
_VCPU: Final = struct.Struct("<7Q")
_EVENT: Final = struct.Struct("<IIQQQII")
_COMMAND: Final = struct.Struct("<II")
EVENT_BYTES: Final = _EVENT.size
CONFIG_BYTES: Final = _CONFIG.size + MAX_VCPUS * _VCPU.size
COMMAND_BYTES: Final = _COMMAND.size

BOOT_MAGIC: Final = 0x31544F4F42454643
BOOT: Final = struct.Struct("<QII7QII3Q32s")
BOOT_VCPU: Final = struct.Struct("<QQ")
BOOT_SEED_OFFSET: Final = 104
BOOT_SEED_BYTES: Final = 32
MONITOR_VCPU: Final = struct.Struct("<QQII40x")
MONITOR_ATTACHED: Final = MAX_VCPUS * 64
MONITOR_SETTLED: Final = MONITOR_ATTACHED + 4 * MAX_REGIONS
MONITOR_BYTES: Final = MONITOR_SETTLED + 4 * MAX_REGIONS

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
    CALLBACK = 16


class ChannelState(IntEnum):
    """``enum cafe_channel_state``."""

    STARTING = 0
    READY = 1
    DEAD = 2


class Sleeping(IntEnum):
    """``enum cafe_sleeping``: how many vCPUs sleep."""

    NONE = 0
    SOME = 1
    ALL = 2


class Exit(IntEnum):
    """``enum cafe_exit``: why the enclave left through the port."""

    READY = 1
    IDLE = 2
    WAKE = 3
    ABORT = 4
    YIELD = 5
    REST = 6


class CommandKind(IntEnum):
    """``enum vmm_command_kind``."""

    ATTACH = 1
    DETACH = 2


class EventKind(IntEnum):
    """``enum vmm_event_kind``."""

    READY = 1
    FAULT = 2
    DEADLINE = 3
    ABORT = 4
    HOST = 5
    ATTACHED = 6


@dataclass(frozen=True, slots=True)
class VmmVcpu:
    """``struct vmm_vcpu``: where one vCPU starts, and its own descriptor tables and fault stack."""

    rsp: int
    fs_base: int
    gdt_base: int
    idt_base: int
    tss_base: int
    fault_stack: int
    fault_stack_gpa: int


@dataclass(frozen=True, slots=True)
class VmmConfig:
    """``struct vmm_config`` without magic and version; the fields' order is that of the structure."""

    isa: int
    memory_bytes: int
    channel_gpa: int
    channel_stride: int
    region_bytes: int
    slot_bytes: int
    region_count: int
    slot_count: int
    vcpu_count: int
    gdt_limit: int
    idt_limit: int
    tss_limit: int
    monitor_gpa: int
    cr3: int
    rip: int
    rdi: int
    fault_handler: int
    deadline_ns: int
    vcpus: tuple[VmmVcpu, ...]
    """As many as the structure has room for; those beyond ``vcpu_count`` are zero and left out here."""

    def pack(self) -> bytes:
        """Return the structure's bytes."""
        head = _CONFIG.pack(CONFIG_MAGIC, ABI_VERSION, *_config_values(self))
        return (head + b"".join(_VCPU.pack(*astuple(vcpu)) for vcpu in self.vcpus)).ljust(CONFIG_BYTES, b"\0")


_CONFIG_NAMES: Final = [field.name for field in fields(VmmConfig) if field.name != "vcpus"]
_config_values: Final = attrgetter(*_CONFIG_NAMES)


def parse_config(data: bytes) -> VmmConfig:
    """Parse ``struct vmm_config``; the values are not judged, but for the number of vCPUs.

    :raises MalformedError: another length or magic number.
    :raises VersionError: another ABI version.
    :raises LimitError: more vCPUs than the structure has room for.
    """
    if len(data) != CONFIG_BYTES:
        raise MalformedError(f"a VMM configuration of {len(data)} bytes")
    magic, version, *values = _CONFIG.unpack_from(data)
    if magic != CONFIG_MAGIC:
        raise MalformedError("not a VMM configuration")
    if version != ABI_VERSION:
        raise VersionError(f"ABI version {version}")
    named = dict(zip(_CONFIG_NAMES, values, strict=True))
    count = named["vcpu_count"]
    if count > MAX_VCPUS:
        raise LimitError(f"{count} vCPUs")
    places = range(_CONFIG.size, _CONFIG.size + count * _VCPU.size, _VCPU.size)
    return VmmConfig(**named, vcpus=tuple(VmmVcpu(*_VCPU.unpack_from(data, at)) for at in places))


@dataclass(frozen=True, slots=True)
class VmmCommand:
    """``struct vmm_command``: attach or detach a channel region."""

    kind: CommandKind
    region: int = 0

    def pack(self) -> bytes:
        """Return the structure's bytes."""
        return _COMMAND.pack(self.kind, self.region)


def parse_command(data: bytes) -> VmmCommand:
    """Parse ``struct vmm_command``.

    :raises MalformedError: another length or kind.
    """
    if len(data) != COMMAND_BYTES:
        raise MalformedError(f"a VMM command of {len(data)} bytes")
    kind, region = _COMMAND.unpack(data)
    if kind not in set(CommandKind):
        raise MalformedError(f"a VMM command of kind {kind}")
    return VmmCommand(CommandKind(kind), region)


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


def channel_bytes(slot_count: int, slot_bytes: int, bulk_bytes: int = 0) -> int:
    """Return the length of a channel region in bytes.

    :raises LimitError: count or size out of their bounds, or a size that is not a multiple of its unit.
    """
    if not 1 <= slot_count <= MAX_SLOTS:
        raise LimitError(f"a channel of {slot_count} slots")
    if not MIN_SLOT_BYTES <= slot_bytes <= MAX_SLOT_BYTES or slot_bytes % PAGE:
        raise LimitError(f"slots of {slot_bytes} bytes")
    if not 0 <= bulk_bytes <= MAX_BULK_BYTES or bulk_bytes % BULK_ALIGN:
        raise LimitError(f"{bulk_bytes} bytes for large buffers")
    slots_end = CHANNEL_HEADER_BYTES + slot_count * slot_bytes
    return -(-slots_end // BULK_ALIGN) * BULK_ALIGN + bulk_bytes if bulk_bytes else slots_end
