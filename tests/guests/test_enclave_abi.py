"""The agent's Python copy of cafe_abi.h says what the header says; messages of a VMM are judged."""

from __future__ import annotations

import ast
import struct
import subprocess
from dataclasses import fields
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
    sizes = (abi.CONFIG_BYTES, abi.EVENT_BYTES, abi.BOOT.size, abi.MONITOR.size)
    names = ("vmm_config", "vmm_event", "cafe_boot", "cafe_monitor")
    assert sizes == tuple(header[f"sizeof {name}"] for name in names)


def test_channel(header: dict[str, int]) -> None:
    assert header["cafe_channel_header.state"] == abi.CHANNEL_STATE
    assert header["cafe_channel_header.status"] == abi.CHANNEL_STATUS
    assert header["cafe_channel_header.sleeping"] == abi.CHANNEL_SLEEPING
    assert header["cafe_channel_header.bell"] == abi.CHANNEL_BELL
    assert header["cafe_channel_header.region_bytes"] + 8 == abi.CHANNEL_HEADER.size
    assert (header["cafe_slot.reply"], header["cafe_slot.request"]) == (abi.SLOT_REPLY, abi.SLOT_REQUEST)
    assert header["cafe_boot.seed"] == abi.BOOT_SEED_OFFSET


def test_configuration_field_by_field(header: dict[str, int]) -> None:
    names = [field.name for field in fields(abi.VmmConfig)]
    config = abi.VmmConfig(*range(1, len(names) + 1))
    data = config.pack()
    for name in names[1:]:
        offset = header[f"vmm_config.{name}"]
        size = 4 if name.endswith("limit") or name == "slot_count" else 8
        assert int.from_bytes(data[offset : offset + size], "little") == getattr(config, name), name
    assert abi.parse_config(data) == config


def test_values(header: dict[str, int]) -> None:
    assert header["CAFE_ABI_VERSION"] == abi.ABI_VERSION
    assert header["CAFE_CHANNEL_MAGIC"] == abi.CHANNEL_MAGIC
    assert header["CAFE_CHANNEL_HEADER_BYTES"] == abi.CHANNEL_HEADER_BYTES
    limits = (header["CAFE_MAX_SLOTS"], header["CAFE_MIN_SLOT_BYTES"], header["CAFE_MAX_SLOT_BYTES"])
    assert limits == (abi.MAX_SLOTS, abi.MIN_SLOT_BYTES, abi.MAX_SLOT_BYTES)
    assert (header["CAFE_BOOT_MAGIC"], header["VMM_CONFIG_MAGIC"]) == (abi.BOOT_MAGIC, abi.CONFIG_MAGIC)
    assert (header["CAFE_PORT"], header["VMM_VECTOR_UNKNOWN"]) == (abi.PORT, abi.VECTOR_UNKNOWN)
    enums = (abi.Status.TRANSPORT, abi.Status.REVOKED, abi.Exit.ABORT, abi.EventKind.HOST)
    names = ("CAFE_E_TRANSPORT", "CAFE_E_REVOKED", "CAFE_EXIT_ABORT", "VMM_EVENT_HOST")
    assert tuple(header[name] for name in names) == enums


GOOD_EVENT = abi.VmmEvent(abi.EventKind.FAULT, 14, 6, 0x1000, 0x2000, 4).pack()
BAD_EVENTS = {
    "empty": b"",
    "short": GOOD_EVENT[:-1],
    "long": GOOD_EVENT + b"\0",
    "kind 0": struct.pack("<I", 0) + GOOD_EVENT[4:],
    "kind 6": struct.pack("<I", 6) + GOOD_EVENT[4:],
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


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", MalformedError),
        (bytes(abi.CONFIG_BYTES), MalformedError),
        (struct.pack("<QI", abi.CONFIG_MAGIC, 2).ljust(abi.CONFIG_BYTES, b"\0"), VersionError),
    ],
    ids=["empty", "magic", "version"],
)
def test_bad_configuration_message(data: bytes, error: type[ProtocolError]) -> None:
    with pytest.raises(error):
        abi.parse_config(data)


@pytest.mark.parametrize(
    ("count", "size"),
    [(0, 4096), (65, 4096), (-1, 4096), (1, 0), (1, 2048), (1, 4097), (1, (64 << 20) + 4096), (1, 1 << 63)],
)
def test_channel_bounds(count: int, size: int) -> None:
    with pytest.raises(LimitError):
        abi.channel_bytes(count, size)
