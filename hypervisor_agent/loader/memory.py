"""The enclave's memory: a sealed memfd that the guest never maps, the only place where plaintext is."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
from typing import Final

from cafe_lib.errors import HostError
from hypervisor_agent.abi import PAGE

_MADV_POPULATE_WRITE: Final = 23  # Linux 5.14; not in Python's mmap module yet
_ZEROS: Final = bytes(1 << 20)
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class EnclaveMemory:
    """Owns the memfd. The image's part is mapped here until :meth:`seal`; the VMM maps all of it later.

    Locking into RAM is best effort here (RLIMIT_MEMLOCK); the VMM locks its own mapping again.
    """

    def __init__(self, image_bytes: int) -> None:
        """Make room for an image of ``image_bytes``, populated, so that no chunk pays for page faults.

        :raises HostError: no memory, or no descriptor.
        """
        mapped = -(-image_bytes // PAGE) * PAGE
        self._fd = -1
        try:
            self._fd = os.memfd_create("cafe-enclave", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(self._fd, mapped)
            self._map = mmap.mmap(self._fd, mapped)
            self._map.madvise(mmap.MADV_DONTDUMP)
            self._map.madvise(_MADV_POPULATE_WRITE)
        except OSError as error:
            if self._fd >= 0:
                os.close(self._fd)
            raise HostError(f"no memory for the enclave: {error.strerror}") from error
        self._view: memoryview | None = memoryview(self._map)
        address = ctypes.c_char.from_buffer(self._map)
        _libc.mlock(ctypes.addressof(address), mapped)
        del address  # or the mapping could not be closed

    @property
    def fd(self) -> int:
        """The memfd's descriptor."""
        return self._fd

    @property
    def view(self) -> memoryview:
        """The image's part, writable, until it is sealed."""
        if self._view is None:
            raise HostError("the enclave's memory is sealed already")
        return self._view

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
        """Write page tables and the like, which hold no plaintext, at ``offset``.

        :raises HostError: no memory.
        """
        try:
            written = os.pwrite(self._fd, data, offset)
        except OSError as error:
            raise HostError(f"no memory for the enclave: {error.strerror}") from error
        if written != memoryview(data).nbytes:
            raise HostError("no memory for the enclave: a short write")

    def unmap(self) -> None:
        """Drop this process's view; the memory lives on in the descriptor."""
        if self._view is not None:
            self._view.release()
            self._view = None
            self._map.close()

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
