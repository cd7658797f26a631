"""Where gdb is served: on this machine only, since its protocol knows no password."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cafe_lib.errors import HostError, MalformedError

_MAX_PORT: Final = 65535
_UNIX: Final = "unix:"
_WAIT: Final = ",wait"
_OPTION: Final = "--gdb"


@dataclass(frozen=True, slots=True)
class Gdb:
    """Where gdb is served, and whether a debug enclave waits for it before its first call."""

    address: str
    wait: bool = False

    @classmethod
    def parse(cls, text: str) -> Gdb:
        """Parse ADDRESS or ADDRESS,wait; see :func:`parse_address`.

        :raises MalformedError: not an address of this machine.
        """
        address = text.removesuffix(_WAIT)
        parse_address(address)
        return cls(address, address != text)

    def arguments(self) -> tuple[str, str]:
        """Return the emulator's arguments."""
        return (_OPTION, self.address + _WAIT * self.wait)


def parse_arguments(arguments: Sequence[str]) -> Gdb | None:
    """Parse the emulator's arguments, which the agent gives: none, or those of :class:`Gdb`.

    :raises MalformedError: others.
    """
    if not arguments:
        return None
    if len(arguments) != len(Gdb("").arguments()) or arguments[0] != _OPTION:
        raise MalformedError("unknown arguments")
    return Gdb.parse(arguments[1])


def parse_address(text: str) -> tuple[str, int] | str:
    """Parse HOST:PORT of this machine, or unix:PATH.

    :raises MalformedError: anything else, another machine's address above all.
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
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


def _remove_stale(path: Path) -> None:
    """Remove a socket at which nobody answers."""
    with socket.socket(socket.AF_UNIX) as other:
        try:
            other.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
