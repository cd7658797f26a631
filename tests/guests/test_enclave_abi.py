"""The agent's Python copy of cafe_abi.h says what the header says; messages of a VMM are judged."""

from __future__ import annotations

import ast
import struct
import subprocess
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cafe_lib.errors import LimitError, MalformedError, ProtocolError, VersionError
from hypervisor_agent import abi

HERE = Path(__file__).resolve().parent
INCLUDE = HERE.parents[1] / "cafe_lib" / "include"


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Compile the header and return its values."""
    program = tmp_path_factory.mktemp("abi") / "abi_print"
    command = ["gcc", "-I", str(INCLUDE), str(HERE / "abi_print.c"), "-o", str(program)]
    subprocess.run(command, check=True)
    text = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    return dict(ast.literal_eval(text))


def test_sizes(header: dict[str, int]) -> None:
    sizes = {
        "vmm_config": abi.CONFIG_BYTES,
        "vmm_event": abi.EVENT_BYTES,
        "vmm_command": abi.COMMAND_BYTES,
        "cafe_boot": abi.BOOT.size + abi.MAX_VCPUS * abi.BOOT_VCPU.size,
        "cafe_boot_vcpu": abi.BOOT_VCPU.size,
        "cafe_monitor": abi.MONITOR_BYTES,
        "cafe_monitor_vcpu": abi.MONITOR_VCPU.size,
    }
    assert sizes == {name: header[f"sizeof {name}"] for name in sizes}


def test_channel(header: dict[str, int]) -> None:
    for name in ("state", "status", "sleeping", "bell"):
        assert header[f"cafe_channel_header.{name}"] == getattr(abi, f"CHANNEL_{name.upper()}"), name
    assert header["cafe_channel_header.region_bytes"] + 8 == abi.CHANNEL_HEADER.size
    for name in ("reply", "status", "result", "request", "entry", "waiting", "returned", "frame"):
        assert header[f"cafe_slot.{name}"] == getattr(abi, f"SLOT_{name.upper()}"), name
    assert header["cafe_monitor.attached"] == abi.MONITOR_ATTACHED
    assert header["cafe_monitor.settled"] == abi.MONITOR_SETTLED


def test_channel_header_field_by_field(header: dict[str, int]) -> None:
    data = abi.CHANNEL_HEADER.pack(1, 2, 3, 4, 5, 6)
    for value, name in enumerate(("slot_bytes", "bulk_bytes", "region_bytes"), start=4):
        assert data[header[f"cafe_channel_header.{name}"]] == value, name


def test_boot_page_field_by_field(header: dict[str, int]) -> None:
    names = ("slot_bytes", "bulk_bytes", "base", "heap", "heap_bytes", "channel", "channel_stride")
    names += ("region_count", "vcpu_count", "monitor", "spin_cycles", "isa")
    data = abi.BOOT.pack(1, 2, 3, *range(4, 4 + len(names)), bytes(32))
    for value, name in enumerate(names, start=4):
        assert data[header[f"cafe_boot.{name}"]] == value, name
    assert header["cafe_boot.seed"] == abi.BOOT_SEED_OFFSET
    assert header["cafe_boot.vcpus"] == abi.BOOT.size


def test_configuration_field_by_field(header: dict[str, int]) -> None:
    names = [field.name for field in fields(abi.VmmConfig) if field.name != "vcpus"]
    own = [field.name for field in fields(abi.VmmVcpu)]
    vcpus = tuple(abi.VmmVcpu(*range(100 + 10 * vcpu, 107 + 10 * vcpu)) for vcpu in range(2))
    config = replace(abi.VmmConfig(*range(1, len(names) + 1), vcpus), vcpu_count=2)
    data = config.pack()
    for name in names:
        offset = header[f"vmm_config.{name}"]
        size = 4 if name.endswith(("limit", "count")) or name == "isa" else 8
        assert int.from_bytes(data[offset : offset + size], "little") == getattr(config, name), name
    for number, vcpu in enumerate(vcpus):
        start = header["vmm_config.vcpus"] + number * header["sizeof vmm_vcpu"]
        for name in own:
            assert data[start + header[f"vmm_vcpu.{name}"]] == getattr(vcpu, name), name
    assert abi.parse_config(data) == config


def test_values(header: dict[str, int]) -> None:
    for name in ("ABI_VERSION", "PAGE", "CHANNEL_MAGIC", "CHANNEL_HEADER_BYTES", "BOOT_MAGIC", "PORT"):
        assert header[f"CAFE_{name}"] == getattr(abi, name), name
    for name in ("MAX_SLOTS", "MIN_SLOT_BYTES", "MAX_SLOT_BYTES", "MAX_BULK_BYTES", "MAX_REGIONS"):
        assert header[f"CAFE_{name}"] == getattr(abi, name), name
    for name in ("BULK_ALIGN", "MAX_VCPUS", "MAX_NESTING", "ENTRY_RETURN", "SLOT_FRAME"):
        assert header[f"CAFE_{name}"] == getattr(abi, name), name
    assert header["CAFE_STATUS_CALLBACK"] == abi.CALLBACK
    assert (header["VMM_CONFIG_MAGIC"], header["VMM_FD"]) == (abi.CONFIG_MAGIC, abi.VMM_FD)
    assert header["VMM_VECTOR_UNKNOWN"] == abi.VECTOR_UNKNOWN


def test_enumerations(header: dict[str, int]) -> None:
    values = {
        "CAFE_E_TRANSPORT": abi.Status.TRANSPORT,
        "CAFE_E_REVOKED": abi.Status.REVOKED,
        "CAFE_E_CALLBACK": abi.Status.CALLBACK,
        "CAFE_ALL_SLEEP": abi.Sleeping.ALL,
        "CAFE_CHANNEL_DEAD": abi.ChannelState.DEAD,
        "CAFE_EXIT_ABORT": abi.Exit.ABORT,
        "CAFE_EXIT_REST": abi.Exit.REST,
        "VMM_ATTACH": abi.CommandKind.ATTACH,
        "VMM_DETACH": abi.CommandKind.DETACH,
        "VMM_EVENT_HOST": abi.EventKind.HOST,
        "VMM_EVENT_ATTACHED": abi.EventKind.ATTACHED,
    }
    assert values == {name: header[name] for name in values}


GOOD_EVENT = abi.VmmEvent(abi.EventKind.FAULT, 14, 6, 0x1000, 0x2000, 4).pack()
BAD_EVENTS = {
    "empty": b"",
    "short": GOOD_EVENT[:-1],
    "long": GOOD_EVENT + b"\0",
    "kind 0": struct.pack("<I", 0) + GOOD_EVENT[4:],
    "kind 7": struct.pack("<I", 7) + GOOD_EVENT[4:],
    "last word": GOOD_EVENT[:-1] + b"\1",
}


@pytest.mark.parametrize("data", BAD_EVENTS.values(), ids=BAD_EVENTS)
def test_bad_event(data: bytes) -> None:
    with pytest.raises(MalformedError):
        abi.parse_event(data)


@given(st.binary(max_size=64) | st.binary(min_size=40, max_size=40))
def test_any_bytes_as_event(data: bytes) -> None:
    try:
        event = abi.parse_event(data)
    except ProtocolError:
        return
    assert event.pack() == data


@pytest.mark.parametrize("data", [b"", bytes(8), bytes(7), struct.pack("<II", 3, 0), bytes(12)])
def test_bad_command(data: bytes) -> None:
    with pytest.raises(MalformedError):
        abi.parse_command(data)


def test_command() -> None:
    command = abi.VmmCommand(abi.CommandKind.DETACH, 7)
    assert command.pack() == struct.pack("<II", 2, 7)
    assert abi.parse_command(command.pack()) == command


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", MalformedError),
        (bytes(abi.CONFIG_BYTES), MalformedError),
        (struct.pack("<QI", abi.CONFIG_MAGIC, 1).ljust(abi.CONFIG_BYTES, b"\0"), VersionError),
        (struct.pack("<QI", abi.CONFIG_MAGIC, 2).ljust(abi.CONFIG_BYTES, b"\xff"), LimitError),
    ],
    ids=["empty", "magic", "version", "vCPUs"],
)
def test_bad_configuration_message(data: bytes, error: type[ProtocolError]) -> None:
    with pytest.raises(error):
        abi.parse_config(data)


@pytest.mark.parametrize(
    ("count", "size", "bulk"),
    [
        *((0, 4096, 0), (65, 4096, 0), (-1, 4096, 0)),
        *((1, 0, 0), (1, 2048, 0), (1, 4097, 0), (1, (64 << 20) + 4096, 0), (1, 1 << 63, 0)),
        *((1, 4096, 4096), (1, 4096, -(2 << 20)), (1, 4096, (1 << 30) + (2 << 20)), (1, 4096, 1 << 63)),
    ],
)
def test_channel_bounds(count: int, size: int, bulk: int) -> None:
    with pytest.raises(LimitError):
        abi.channel_bytes(count, size, bulk)


def test_bulk_area_starts_at_a_large_page() -> None:
    assert abi.channel_bytes(2, 8192) == 4096 + 2 * 8192
    assert abi.channel_bytes(2, 8192, 2 << 20) == (2 << 20) + (2 << 20)
    assert abi.channel_bytes(1, 2 << 20, 4 << 20) == (4 << 20) + (4 << 20)
