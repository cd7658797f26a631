"""The channel: a sealed memfd of one guest process and its enclave. The agent writes the header only."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from typing import Final

from cafe_lib.errors import HostError
from hypervisor_agent import abi
from hypervisor_agent.enclave.futex import futex_wake

_WORD: Final = struct.Struct("<I")


class Channel:
    """Owns the memfd and a mapping of it, through which the end of an enclave is told to waiting calls."""

    def __init__(self, slot_count: int, slot_bytes: int) -> None:
        """Make the region with its header.

        :raises LimitError: count or size out of bounds.
        :raises HostError: no memory, or no descriptor.
        """
        self.slot_count, self.slot_bytes = slot_count, slot_bytes
        self.size = abi.channel_bytes(slot_count, slot_bytes)
        try:
            self._fd = os.memfd_create("cafe-channel", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            raise HostError(f"no memory for the channel: {error.strerror}") from error
        try:
            os.ftruncate(self._fd, self.size)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, seals)
            self._map = mmap.mmap(self._fd, self.size)
        except OSError as error:
            os.close(self._fd)
            raise HostError(f"no memory for the channel: {error.strerror}") from error
        head = (abi.CHANNEL_MAGIC, abi.ABI_VERSION, slot_count, slot_bytes, self.size)
        abi.CHANNEL_HEADER.pack_into(self._map, 0, *head)

    @property
    def fd(self) -> int:
        """The memfd's descriptor, to be passed to the guest and the VMM."""
        return self._fd

    def mark_dead(self, status: abi.Status) -> None:
        """Say that the enclave has ended and wake every waiting call. Only once the VMM is gone; idempotent.

        A reason that the VMM itself gave stays.
        """
        if self._fd < 0:
            return
        if _WORD.unpack_from(self._map, abi.CHANNEL_STATE)[0] != abi.ChannelState.DEAD:
            _WORD.pack_into(self._map, abi.CHANNEL_STATUS, status)
            _WORD.pack_into(self._map, abi.CHANNEL_STATE, abi.ChannelState.DEAD)
        anchor = ctypes.c_char.from_buffer(self._map)
        start = ctypes.addressof(anchor)
        futex_wake(start + abi.CHANNEL_STATE)
        for slot in range(self.slot_count):
            futex_wake(start + abi.CHANNEL_HEADER_BYTES + slot * self.slot_bytes + abi.SLOT_REPLY)
        del anchor  # or the mapping could not be closed

    def close(self) -> None:
        """Drop mapping and descriptor; idempotent. The guest's own mapping stays valid."""
        if self._fd >= 0:
            self._map.close()
            os.close(self._fd)
            self._fd = -1
