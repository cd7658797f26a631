"""The control messages of cafe_abi.h: named bad inputs, every byte string, and the C compiler's opinion."""

from __future__ import annotations

import re
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cafe_lib import errors
from hypervisor_agent.abi import ABI_VERSION, Status
from hypervisor_agent.guests.messages import (
    REPLY_BYTES,
    REQUEST_BYTES,
    LaunchReply,
    LaunchRequest,
)
from hypervisor_agent.guests.status import message_of, status_of

HEADER = Path(__file__).resolve().parents[2] / "cafe_lib" / "include" / "cafe_abi.h"
GOOD = LaunchRequest(7, b"i" * 32, b"d" * 32)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        pytest.param(b"", errors.MalformedError, id="empty"),
        pytest.param(GOOD.encode()[:-1], errors.MalformedError, id="truncated"),
        pytest.param(GOOD.encode() + b"\0", errors.MalformedError, id="trailing byte"),
        pytest.param(b"\0" * 4 + GOOD.encode()[4:], errors.MalformedError, id="wrong magic"),
        pytest.param(GOOD.encode()[::-1], errors.MalformedError, id="big-endian"),
        pytest.param(
            GOOD.encode()[:4] + struct.pack("<I", ABI_VERSION + 1) + GOOD.encode()[8:],
            errors.VersionError,
            id="next ABI",
        ),
        pytest.param(GOOD.encode()[:4] + bytes(4) + GOOD.encode()[8:], errors.VersionError, id="ABI zero"),
    ],
)
def test_bad_requests_are_typed_errors(data: bytes, error: type[errors.CafeError]) -> None:
    with pytest.raises(error):
        LaunchRequest.parse(data)


@given(st.binary(max_size=2 * REQUEST_BYTES))
def test_any_bytes_give_a_request_or_a_protocol_error(data: bytes) -> None:
    with suppress(errors.ProtocolError):
        assert LaunchRequest.parse(data).encode() == data


@given(st.integers(0, 2**64 - 1), st.sampled_from(Status), st.integers(0, 2**64 - 1), st.text())
def test_replies_fit_and_end_in_nul(number: int, status: Status, region_bytes: int, message: str) -> None:
    data = LaunchReply(number, status, region_bytes, message).encode()
    assert len(data) == REPLY_BYTES
    assert data[-1] == 0
    again = LaunchReply.parse(data)
    assert (again.number, again.status, again.region_bytes) == (number, status, region_bytes)
    assert message.split("\0", maxsplit=1)[0].startswith(again.message)


@given(st.binary(max_size=2 * REPLY_BYTES))
def test_any_bytes_give_a_reply_or_a_protocol_error(data: bytes) -> None:
    with suppress(errors.ProtocolError):
        assert LaunchReply.parse(data).status in Status


def test_the_statuses_are_those_of_the_header() -> None:
    declared = {name: int(value) for name, value in re.findall(r"CAFE_E?_?(\w+) = (\d+),", _status_enum())}
    assert declared == {status.name: status.value for status in Status}


def _status_enum() -> str:
    text = HEADER.read_text()
    return text[text.index("enum cafe_status {") : text.index("};", text.index("enum cafe_status {"))]


def test_the_sizes_are_those_of_the_compiler(tmp_path: Path) -> None:
    source = tmp_path / "sizes.c"
    source.write_text(
        f'#include "{HEADER}"\n'
        f'_Static_assert(sizeof(struct cafe_launch_request) == {REQUEST_BYTES}, "");\n'
        f'_Static_assert(sizeof(struct cafe_launch_reply) == {REPLY_BYTES}, "");\n'
    )
    done = subprocess.run(["gcc", "-fsyntax-only", str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.LicenceError(), Status.LICENCE),
        (errors.PolicyError(), Status.REFUSED),
        (errors.QuoteError(), Status.REFUSED),
        (errors.SignatureError(), Status.REFUSED),
        (errors.ForbiddenError(), Status.REFUSED),
        (errors.NotFoundError(), Status.NOT_FOUND),
        (errors.VersionError(), Status.VERSION),
        (errors.InterfaceError(), Status.VERSION),
        (errors.TransportError(), Status.TRANSPORT),
        (errors.FaultError(), Status.FAULT),
        (errors.DeadlineError(), Status.DEADLINE),
        (errors.ExitedError(), Status.EXITED),
        (errors.KvmError(), Status.HOST),
        (errors.TpmError(), Status.HOST),
        (errors.ImageError(), Status.HOST),
        (errors.CafeError(), Status.HOST),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_become_statuses(error: errors.CafeError, status: Status) -> None:
    assert status_of(error) is status


@pytest.mark.case("D03")
def test_a_guest_is_not_shown_details() -> None:
    error = errors.DigestError("chunk key 0123456789abcdef is wrong", hint="call the operator")
    assert message_of(error) == "A digest does not match. call the operator"
    assert message_of(errors.LicenceError("secret detail")).endswith("Ask the marketplace.")
