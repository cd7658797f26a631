"""How gdb's debugger gets at a CPU under Unicorn, and where it listens: this machine only."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
from pathlib import Path
from typing import Any, Final

import unicorn
from unicorn import x86_const as x86

from cafe_lib.errors import HostError, MalformedError
from hypervisor_agent.enclave.debugger import Debugger

_RENAMED: Final = {
    "fctrl": "FPCW",
    "fstat": "FPSW",
    "ftag": "FPTAG",
    "fop": "FOP",
    "fioff": "FIP",
    "fiseg": "FCS",
    "fooff": "FDP",
    "foseg": "FDS",
}
_PAGE: Final = 4096
_MAX_PORT: Final = 65535
_UNIX: Final = "unix:"


def _number(name: str) -> int | None:
    found = getattr(x86, f"UC_X86_REG_{_RENAMED.get(name, name.upper())}", None)
    return found if isinstance(found, int) else None


class UnicornCpu:
    """A vCPU as the debugger sees it."""

    def __init__(self, uc: Any) -> None:  # noqa: ANN401 - unicorn
        self._uc = uc

    def read_register(self, name: str) -> int | None:
        """See the port; a register of the x87 stack is mantissa and exponent."""
        number = _number(name)
        if number is None:
            return None
        value = self._uc.reg_read(number)
        return value[1] << 64 | value[0] if isinstance(value, tuple) else int(value)

    def write_register(self, name: str, value: int) -> bool:
        """See the port."""
        number = _number(name)
        if number is None:
            return False
        if name.startswith("st"):
            self._uc.reg_write(number, (value & (2**64 - 1), value >> 64))
        else:
            self._uc.reg_write(number, value)
        return True

    def read_memory(self, address: int, size: int) -> bytes:
        """See the port."""
        found = bytearray()
        while size:
            part = min(size, _PAGE - address % _PAGE)
            try:
                found += self._uc.mem_read(address, part)
            except unicorn.UcError:
                break
            address, size = (address + part) % 2**64, size - part
        return bytes(found)

    def write_memory(self, address: int, data: bytes) -> bool:
        """See the port."""
        try:
            self._uc.mem_write(address, data)
        except unicorn.UcError:
            return False
        self._uc.ctl_remove_cache(address, address + len(data))  # it may have been code
        return True


def watch(uc: Any, index: int, debugger: Debugger) -> None:  # noqa: ANN401 - unicorn
    """Have the debugger asked before every instruction of vCPU ``index``; before it runs."""
    debugger.add_cpu(index, UnicornCpu(uc))

    def on_code(_: object, address: int, __: int, ___: object) -> None:
        debugger.on_instruction(index, address)

    uc.hook_add(unicorn.UC_HOOK_CODE, on_code)


def parse_address(text: str) -> tuple[str, int] | str:
    """Parse HOST:PORT of this machine, or unix:PATH.

    :raises MalformedError: anything else, another machine's address above all: gdb's protocol knows no
        password.
    """
    if text.startswith(_UNIX) and len(text) > len(_UNIX):
        return text[len(_UNIX) :]
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    with contextlib.suppress(ValueError):
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
        if loopback and port.isascii() and port.isdecimal() and 0 < int(port) <= _MAX_PORT:
            return ("127.0.0.1" if host == "localhost" else host, int(port))
    raise MalformedError("gdb is served on a loopback address, 127.0.0.1:PORT, or on unix:PATH only")


def listen(text: str) -> socket.socket:
    """Listen for one gdb at a time.

    :raises MalformedError: see :func:`parse_address`.
    :raises HostError: the address is taken, by another debug enclave perhaps.
    """
    address = parse_address(text)
    try:
        if isinstance(address, str):
            return _listen_at_path(Path(address))
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        listener = socket.create_server(address, family=family, backlog=1)
    except OSError as error:
        raise HostError(f"gdb cannot be served on {text}: {error.strerror}") from error
    return listener


def _listen_at_path(path: Path) -> socket.socket:
    """Listen where nobody else does; only the agent's user may connect."""
    listener = socket.socket(socket.AF_UNIX)
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            with socket.socket(socket.AF_UNIX) as other, contextlib.suppress(ConnectionRefusedError):
                other.connect(str(path))
                raise OSError(0, "in use")
            path.unlink()
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen(1)
    return listener
