"""Where gdb is served: for debug builds, in the emulator, on this machine; refused before anything starts."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest
import typer

from cafe_lib.errors import HostError, MalformedError
from hypervisor_agent.__main__ import _gdb
from hypervisor_agent.enclave.backend import Backend, choose_backend
from hypervisor_agent.enclave.gdbaddress import Gdb, listen, parse_arguments

EMULATOR = choose_backend("emulator")


def test_debug_builds_must_be_allowed() -> None:
    with pytest.raises(typer.BadParameter, match="allow-debug"):
        _gdb(EMULATOR, "127.0.0.1:1234", allow=False)
    assert _gdb(EMULATOR, "", allow=False) is None
    assert _gdb(EMULATOR, "127.0.0.1:1234,wait", allow=True) == Gdb("127.0.0.1:1234", wait=True)


def test_kvm_has_no_stub() -> None:
    with pytest.raises(HostError, match="emulator"):
        _gdb(Backend("kvm", ("vmm",)), "127.0.0.1:1234", allow=True)


def test_nobody_else_is_listened_to() -> None:
    with pytest.raises(MalformedError, match="loopback"):
        _gdb(EMULATOR, "0.0.0.0:1234", allow=True)


def test_the_emulator_is_told() -> None:
    command = EMULATOR.with_gdb(Gdb("unix:/run/gdb", wait=True)).command
    assert parse_arguments(command[len(EMULATOR.command) :]) == Gdb("unix:/run/gdb", wait=True)


def test_a_port_that_is_taken_is_an_error_of_the_host() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(HostError, match="gdb cannot be served"),
    ):
        listen(f"127.0.0.1:{taken.getsockname()[1]}")


def test_a_path_is_for_the_agents_user_and_outlives_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "gdb"
    first = listen(f"unix:{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(HostError):
        listen(f"unix:{path}")  # somebody answers there
    first.close()
    listen(f"unix:{path}").close()  # nobody does
    (tmp_path / "file").write_text("not a socket")
    with pytest.raises(HostError):
        listen(f"unix:{tmp_path}/file")
    assert (tmp_path / "file").read_text() == "not a socket"
