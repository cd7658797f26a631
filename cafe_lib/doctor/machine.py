"""The machine this runs on, as the checks see it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import importlib.util
import os
import resource
import shutil
from pathlib import Path
from typing import Final

from cafe_lib.doctor.finding import KvmFacts

_MAX_BYTES: Final = 1 << 20
_KVM_GET_API_VERSION: Final = 0xAE00
_KVM_CHECK_EXTENSION: Final = 0xAE03
_PR_SCHED_CORE: Final = 62
_PR_SCHED_CORE_GET: Final = 0


class LocalMachine:
    """See the port."""

    def read(self, path: str) -> str | None:
        """See the port."""
        try:
            with Path(path).open("rb") as file:
                return file.read(_MAX_BYTES).decode(errors="replace").strip()
        except OSError:
            return None

    def names(self, path: str) -> tuple[str, ...]:
        """See the port."""
        try:
            return tuple(sorted(os.listdir(path)))  # noqa: PTH208 - names are wanted
        except OSError:
            return ()

    def may_use(self, path: str) -> bool | None:
        """See the port."""
        return os.access(path, os.R_OK | os.W_OK) if Path(path).exists() else None

    def kvm(self, capabilities: tuple[int, ...]) -> KvmFacts | None:
        """See the port."""
        try:
            with Path("/dev/kvm").open("rb+", buffering=0) as device:
                version = fcntl.ioctl(device, _KVM_GET_API_VERSION, 0)
                found = {one: fcntl.ioctl(device, _KVM_CHECK_EXTENSION, one) for one in capabilities}
        except OSError:
            return None
        return KvmFacts(version, found)

    def program(self, name: str) -> str | None:
        """See the port."""
        return shutil.which(name)

    def file_exists(self, path: str) -> bool:
        """See the port."""
        return Path(path).is_file()

    def has_module(self, name: str) -> bool:
        """See the port."""
        try:
            return importlib.util.find_spec(name) is not None
        except ImportError:
            return False

    def memlock_bytes(self) -> int | None:
        """See the port: root is bound by no limit."""
        limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        return None if limit == resource.RLIM_INFINITY or os.geteuid() == 0 else limit

    def core_scheduling(self) -> bool:
        """See the port: asked for this process's group; only a kernel that has none knows no such call."""
        libc, cookie = ctypes.CDLL(None, use_errno=True), ctypes.c_ulonglong()
        words = (ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.byref(cookie))
        done = libc.prctl(_PR_SCHED_CORE, ctypes.c_ulong(_PR_SCHED_CORE_GET), *words)
        return done == 0 or ctypes.get_errno() not in (errno.EINVAL, errno.ENODEV)
