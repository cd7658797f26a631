"""The channel: a sealed memfd of one guest process. It outlives an enclave: a fresh one is attached to it.

The agent writes the header once, and the state once a VMM is gone; all else is between guest and enclave.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from typing import Final

from cafe_lib.errors import HostError
from hypervisor_agent import abi
from hypervisor_agent.enclave.futex import futex_wake

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_WORD_BYTES: Final = 4


class Channel:
    """Owns the memfd and a mapping of it, through which the end of an enclave is told to waiting calls.

    Whoever closes it has detached it from its enclave before, or destroyed that.
    """

    def __init__(self, slot_count: int, slot_bytes: int, bulk_bytes: int = 0) -> None:
        """Make the region with its header; no enclave has it yet.

        :param bulk_bytes: for buffers that no slot has room for; 0 for none. Memory is taken when it is used.
        :raises LimitError: count or size out of bounds.
        :raises HostError: no memory, or no descriptor.
        """
        self.slot_count, self.slot_bytes, self.bulk_bytes = slot_count, slot_bytes, bulk_bytes
        self.size = abi.channel_bytes(slot_count, slot_bytes, bulk_bytes)
        try:
            self._fd = os.memfd_create("cafe-channel", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            raise HostError(f"no memory for the channel: {error.strerror}") from error
        try:
            os.ftruncate(self._fd, self.size)
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _SEALS)
            # The bulk area is nothing to us.
            self._map = mmap.mmap(self._fd, abi.CHANNEL_HEADER_BYTES + slot_count * slot_bytes)
        except OSError as error:
            os.close(self._fd)
            raise HostError(f"no memory for the channel: {error.strerror}") from error
        self._words = memoryview(self._map).cast("I")  # one store each, where struct would write zeros first
        head = (abi.CHANNEL_MAGIC, abi.ABI_VERSION, slot_count, slot_bytes, bulk_bytes, self.size)
        abi.CHANNEL_HEADER.pack_into(self._map, 0, *head)

    @property
    def fd(self) -> int:
        """The memfd's descriptor, to be passed to the guest and the VMM."""
        return self._fd

    def mark_dead(self, status: abi.Status) -> None:
        """Say that the enclave has ended and wake every waiting call. Only once the VMM is gone; idempotent.

        A reason that the VMM itself gave stays. Attaching it again makes it live again.
        """
        if self._fd < 0:
            return
        state, reason = (at // _WORD_BYTES for at in (abi.CHANNEL_STATE, abi.CHANNEL_STATUS))
        if self._words[state] != abi.ChannelState.DEAD:
            self._words[reason] = status
            self._words[state] = abi.ChannelState.DEAD
        anchor = ctypes.c_char.from_buffer(self._map)
        start = ctypes.addressof(anchor)
        futex_wake(start + abi.CHANNEL_STATE)
        for slot in range(self.slot_count):
            futex_wake(start + abi.CHANNEL_HEADER_BYTES + slot * self.slot_bytes + abi.SLOT_REPLY)
        del anchor  # or the mapping could not be closed

    def close(self) -> None:
        """Drop mapping and descriptor; idempotent. The guest's own mapping stays valid."""
        if self._fd >= 0:
            self._words.release()
            self._map.close()
            os.close(self._fd)
            self._fd = -1
