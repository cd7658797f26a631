"""Futexes in shared memory and the parent-death signal: system calls that Python does not offer."""

from __future__ import annotations

import ctypes
import errno
import signal
import time
from collections.abc import Sequence
from typing import Final

from cafe_lib.errors import HostError

_SYS_FUTEX: Final = 202  # x86-64
_SYS_FUTEX_WAITV: Final = 449  # Linux 5.16
_FUTEX_32: Final = 2
_FUTEX_WAIT: Final = 0
_FUTEX_WAKE: Final = 1
_EVERYONE: Final = 0x7FFFFFFF
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38

_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def futex_wake(address: int) -> None:
    """Wake everyone who waits on the word at ``address`` of a shared mapping."""
    _libc.syscall(_SYS_FUTEX, ctypes.c_void_p(address), _FUTEX_WAKE, _EVERYONE, None, None, 0)


def futex_wait(address: int, value: int, seconds: float | None = None) -> bool:
    """Sleep while the word at ``address`` holds ``value``; false when ``seconds`` went by."""
    limit = None
    if seconds is not None:
        limit = ctypes.byref(_Timespec(int(seconds), int(seconds % 1 * 1_000_000_000)))
    call = (ctypes.c_void_p(address), _FUTEX_WAIT, ctypes.c_uint32(value), limit, None, 0)
    return _libc.syscall(_SYS_FUTEX, *call) == 0 or ctypes.get_errno() != errno.ETIMEDOUT


class _Waiter(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    )


def futex_wait_any(words: Sequence[tuple[int, int]], seconds: float | None = None) -> None:
    """Sleep while every word, an address with its value, holds that value; may return for no reason.

    :param seconds: at most so long.
    :raises HostError: the kernel is older than Linux 5.16.
    """
    waiters = (_Waiter * len(words))(*(_Waiter(value, address, _FUTEX_32, 0) for address, value in words))
    limit = None
    if seconds is not None:
        end = time.monotonic() + seconds
        limit = ctypes.byref(_Timespec(int(end), int(end % 1 * 1_000_000_000)))
    count = ctypes.c_uint(len(words))
    waited = _libc.syscall(_SYS_FUTEX_WAITV, waiters, count, 0, limit, time.CLOCK_MONOTONIC)
    if waited < 0 and ctypes.get_errno() == errno.ENOSYS:
        raise HostError("waiting for several futexes needs Linux 5.16")


def confine_process() -> None:
    """Die with the thread that spawned us, leave no core dump, gain no rights.

    :raises HostError: the kernel refuses.
    """
    settings = ((_PR_SET_PDEATHSIG, signal.SIGKILL), (_PR_SET_DUMPABLE, 0), (_PR_SET_NO_NEW_PRIVS, 1))
    for option, value in settings:
        if _libc.prctl(option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3) != 0:
            raise HostError(f"prctl {option} failed")
