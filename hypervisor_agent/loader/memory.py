"""The enclave's memory: a sealed memfd that the guest never maps, the only place where plaintext stays."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
from typing import Final

from cafe_lib.errors import HostError
from hypervisor_agent.abi import PAGE

_SYS_MLOCK2: Final = 325  # x86-64
_MLOCK_ONFAULT: Final = 1
_ZEROS: Final = bytes(1 << 20)
_libc = ctypes.CDLL(None, use_errno=True)


class PrivateBuffer:
    """Anonymous memory for plaintext on its way: kept out of dumps, locked where the limits allow, wiped."""

    def __init__(self, size: int) -> None:
        self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._map.madvise(mmap.MADV_DONTDUMP)
        self.view = memoryview(self._map)
        anchor = ctypes.c_char.from_buffer(self._map)
        address = ctypes.c_void_p(ctypes.addressof(anchor))
        _libc.syscall(_SYS_MLOCK2, address, ctypes.c_size_t(size), _MLOCK_ONFAULT)
        self._used = 0

    def first(self, size: int) -> memoryview:
        """Return its first ``size`` bytes."""
        self._used = max(self._used, size)
        return self.view[:size]

    def wipe(self) -> None:
        """Overwrite what was used."""
        self.view[: self._used] = bytes(self._used)


class EnclaveMemory:
    """Owns the memfd.

    Chunks are written to it, not decrypted into a mapping, which would cost a page fault and a page table
    entry per 4 KiB: a third of the time of a large load.

    Until the VMM maps and locks it, a system with swap might swap it; the VMM starts at once.
    """

    def __init__(self, image_bytes: int) -> None:
        """Make room for an image of ``image_bytes``.

        :raises HostError: no memory, or no descriptor.
        """
        self._fd = -1
        self._map: mmap.mmap | None = None
        try:
            self._fd = os.memfd_create("cafe-enclave", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(self._fd, -(-image_bytes // PAGE) * PAGE)
        except OSError as error:
            self.wipe()
            raise HostError(f"no memory for the enclave: {error.strerror}") from error

    @property
    def fd(self) -> int:
        """The memfd's descriptor."""
        return self._fd

    def map(self) -> memoryview:
        """Map what was written so far, to be checked and relocated in place; release it, then :meth:`unmap`.

        :raises HostError: no memory.
        """
        try:
            self._map = mmap.mmap(self._fd, 0)
            self._map.madvise(mmap.MADV_DONTDUMP)
        except OSError as error:
            raise HostError(f"no memory for the enclave: {error.strerror}") from error
        return memoryview(self._map)

    def unmap(self) -> None:
        """Drop this process's view; the memory lives on in the descriptor."""
        if self._map is not None:
            self._map.close()
            self._map = None

    def seal(self, memory_bytes: int) -> None:
        """Grow to the final size and fix it, so that no mapping can be pulled away.

        :raises HostError: the kernel refuses.
        """
        try:
            os.ftruncate(self._fd, memory_bytes)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, seals)
        except OSError as error:
            raise HostError(f"the enclave's memory cannot be sealed: {error.strerror}") from error

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write at ``offset``.

        :raises HostError: no memory.
        """
        try:
            written = os.pwrite(self._fd, data, offset)
        except OSError as error:
            raise HostError(f"no memory for the enclave: {error.strerror}") from error
        if written != len(data):
            raise HostError("no memory for the enclave: a short write")

    def wipe(self) -> None:
        """Overwrite all that was ever written, then close; idempotent. The VMM must have ended."""
        if self._fd < 0:
            return
        try:
            with contextlib.suppress(BufferError):  # a traceback may still hold a view: unmapped when it goes
                self.unmap()
            for start, end in self._extents():
                for offset in range(start, end, len(_ZEROS)):
                    os.pwrite(self._fd, memoryview(_ZEROS)[: end - offset], offset)
        finally:
            os.close(self._fd)
            self._fd = -1

    def _extents(self) -> list[tuple[int, int]]:
        """Where data are, by SEEK_DATA and SEEK_HOLE: a large heap is mostly a hole."""
        found = []
        end, size = 0, os.fstat(self._fd).st_size
        while end < size:
            try:
                start = os.lseek(self._fd, end, os.SEEK_DATA)
            except OSError:  # ENXIO: no data up to the end
                break
            end = os.lseek(self._fd, start, os.SEEK_HOLE)
            found.append((start, end))
        return found
