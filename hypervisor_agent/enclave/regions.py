"""What the emulator shares with others: the enclave's memory, and channel regions that come and go.

A region has a window of fixed addresses, which Unicorn has mapped: the guest process's memfd is laid over it,
and taken out again, while the enclave runs. Nothing in a region is believed; each word is read once.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import threading
from typing import Final

from hypervisor_agent import abi
from hypervisor_agent.abi import ChannelState, Sleeping, Status, VmmConfig
from hypervisor_agent.enclave.futex import futex_wait_any, futex_wake

_MAP_FIXED: Final = 0x10
_MAP_FAILED: Final = (1 << 64) - 1
_MAP_NORESERVE: Final = 0x4000
_EMPTY: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
_WORD_BYTES: Final = 4
_WRAP: Final = 0xFFFFFFFF
_LEFT_SECONDS: Final = 0.005
"""How long a request is left alone that the enclave does not take up."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def _map(size: int, fd: int | None, over: int | None = None) -> int:
    """Map a file, or zeros, somewhere or over what is at ``over``, which is never unmapped for a moment."""
    flags = (_EMPTY if fd is None else mmap.MAP_SHARED) | (0 if over is None else _MAP_FIXED)
    rights = mmap.PROT_READ | mmap.PROT_WRITE
    address = _libc.mmap(over, size, rights, flags, -1 if fd is None else fd, 0)
    if address is None or address == _MAP_FAILED:
        raise OSError(ctypes.get_errno(), "mmap")
    _libc.madvise(address, size, mmap.MADV_DONTDUMP)
    return int(address)


def _check_sealed(fd: int, size: int) -> None:
    """Raise OSError unless a descriptor has this size for ever: then no access to a mapping can fail."""
    if not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK or os.fstat(fd).st_size != size:
        raise OSError(errno.EINVAL, "a descriptor that could shrink, or of another size than configured")


class Words:
    """Memory at an address; a word is read or written at once."""

    def __init__(self, address: int, size: int) -> None:
        self.address = address
        self.view = memoryview((ctypes.c_char * size).from_address(address)).cast("B")
        self._words = self.view.cast("I")

    def load(self, offset: int) -> int:
        """Read a u32."""
        return self._words[offset // _WORD_BYTES]

    def store(self, offset: int, value: int) -> None:
        """Write a u32."""
        self._words[offset // _WORD_BYTES] = value


def map_memory(fd: int, size: int) -> Words:
    """Map the enclave's memory for as long as this process lives.

    :raises OSError: it could shrink, is of another size, or there is no memory.
    """
    _check_sealed(fd, size)
    return Words(_map(size, fd), size)


class Window(Words):
    """The place of one channel region."""

    def __init__(self, config: VmmConfig) -> None:
        super().__init__(_map(config.region_bytes, None), config.region_bytes)
        self.changes = 0
        """How often it was attached or detached; odd while a process has it."""
        stride, end = config.slot_bytes, abi.CHANNEL_HEADER_BYTES + config.slot_count * config.slot_bytes
        self._slots = range(abi.CHANNEL_HEADER_BYTES, end, stride)
        self._size = config.region_bytes

    @property
    def attached(self) -> bool:
        """Whether a process has it."""
        return bool(self.changes & 1)

    def open(self, fd: int) -> None:
        """Lay a channel over it, in which nothing is asked yet.

        :raises OSError: the descriptor could shrink, is of another size, or there is no memory.
        """
        _check_sealed(fd, self._size)
        _map(self._size, fd, self.address)
        for slot in self._slots:
            self.store(slot + abi.SLOT_REPLY, self.load(slot + abi.SLOT_REQUEST))
        self.store(abi.CHANNEL_SLEEPING, Sleeping.NONE)
        self.changes += 1  # from here on the CPU's thread says whether it sleeps

    def empty(self) -> None:
        """Put zeros there, which take up what a call that is under way still writes."""
        self.changes += 1
        _map(self._size, None, self.address)

    def mark(self, state: ChannelState, status: int) -> None:
        """Tell the guest of a new state; one that ends the enclave wakes every waiting call."""
        self.store(abi.CHANNEL_STATUS, status)
        self.store(abi.CHANNEL_STATE, state)
        futex_wake(self.address + abi.CHANNEL_STATE)
        if state is ChannelState.DEAD:
            for index in range(len(self._slots)):
                self.wake(index)

    def wake(self, slot: int) -> None:
        """Wake the guest thread that waits for a slot, if there is such a slot."""
        if slot < len(self._slots):
            futex_wake(self.address + self._slots[slot] + abi.SLOT_REPLY)

    def tell_all_sleep(self) -> None:
        """Write that the enclave sleeps. The system call is the full fence."""
        self.store(abi.CHANNEL_SLEEPING, Sleeping.ALL)
        futex_wake(self.address + abi.CHANNEL_SLEEPING)

    def pending(self) -> bool:
        """Say whether there is a request without a reply."""
        return any(self.load(at + abi.SLOT_REQUEST) != self.load(at + abi.SLOT_REPLY) for at in self._slots)


class Regions:
    """All windows of an enclave. One thread attaches and detaches, another, the CPU's, sleeps and wakes."""

    def __init__(self, config: VmmConfig, memory: Words) -> None:
        self.windows: Final = tuple(Window(config) for _ in range(config.region_count))
        self._memory = memory
        self._monitor = config.monitor_gpa
        self._turn = ctypes.c_uint32(0)  # a futex word: changes when a region has changed, or by `rouse`
        self._turning = threading.Lock()
        self._seen = 0  # the turn when the CPU last looked
        self._begun: int | None = None  # calls it had begun when it left a request alone, if it did

    def attach(self, fd: int) -> int:
        """Lay a channel over a window that nobody has and no call is left in, and return its index.

        :raises OSError: EBUSY when there is none; as for :meth:`Window.open`.
        """
        for index, window in enumerate(self.windows):
            if not window.attached and self._load(abi.MONITOR_SETTLED, index) == window.changes & _WRAP:
                window.open(fd)
                self._publish(index)
                window.mark(ChannelState.READY, Status.OK)
                return index
        raise OSError(errno.EBUSY, "every region is taken")

    def detach(self, index: int) -> None:
        """Empty a window; nothing happens if nobody has it.

        :raises OSError: no memory.
        """
        if index < len(self.windows) and self.windows[index].attached:
            self.windows[index].empty()
            self._publish(index)

    def _load(self, part: int, index: int) -> int:
        return self._memory.load(self._monitor + part + _WORD_BYTES * index)

    def _publish(self, index: int) -> None:
        place = self._monitor + abi.MONITOR_ATTACHED + _WORD_BYTES * index
        self._memory.store(place, self.windows[index].changes & _WRAP)
        self.rouse()

    def mark_dead(self, status: int) -> None:
        """Tell every process that the enclave has ended."""
        for window in self._attached():
            window.mark(ChannelState.DEAD, status)

    def _attached(self) -> list[Window]:
        return [window for window in self.windows if window.attached]

    def wake(self, argument: int) -> None:
        """Do what ``CAFE_EXIT_WAKE`` asks for, if there is such a slot."""
        if argument >> 32 < len(self.windows):
            self.windows[argument >> 32].wake(argument & _WRAP)

    def rouse(self) -> None:
        """Wake the CPU's thread, or keep it from sleeping once."""
        with self._turning:
            self._turn.value = (self._turn.value + 1) & _WRAP
        futex_wake(ctypes.addressof(self._turn))

    def sleep(self) -> None:
        """Sleep until a bell rings or a region changes; not if one has since the last time, or asks already.

        The guest publishes a request, then looks at `sleeping`; we set that, then look for requests: one of
        us sees the other. A region that changes meanwhile changes the turn, which the kernel compares. What
        the CPU was woken for and did not take up, as it waits in a callback or the guest has forged the
        words, only makes it a short sleep.
        """
        turn = self._turn.value
        attached = self._attached()
        words = [(window.address + abi.CHANNEL_BELL, window.load(abi.CHANNEL_BELL)) for window in attached]
        for window in attached:
            window.tell_all_sleep()
        if turn == self._seen:
            asked = any(window.pending() for window in attached)
            begun = self._memory.load(self._monitor) if asked else None
            if begun == self._begun:
                limit = _LEFT_SECONDS if asked else None
                futex_wait_any([(ctypes.addressof(self._turn), turn), *words], limit)
            self._begun = begun
        for window in attached:
            window.store(abi.CHANNEL_SLEEPING, Sleeping.NONE)
        self._seen = self._turn.value
