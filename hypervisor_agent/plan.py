"""What the loader hands to the enclave: sealed memory, a configuration, and a map to explain faults."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntFlag
from typing import NamedTuple, Protocol

from hypervisor_agent.abi import VmmConfig


class Access(IntFlag):
    """What a region's pages allow; reading is always allowed, to ring 0 alone if SUPERVISOR is set."""

    READ = 0
    WRITE = 1
    EXECUTE = 2
    SUPERVISOR = 4


@dataclass(frozen=True, slots=True)
class Region:
    """A mapped range: linear address, length in bytes, guest-physical address (= offset in the memory)."""

    name: str
    address: int
    size: int
    access: Access
    physical: int

    @property
    def end(self) -> int:
        """The first linear address behind it."""
        return self.address + self.size


class PlanMemory(Protocol):
    """The enclave's memory, as the side that runs it needs it."""

    @property
    def fd(self) -> int:
        """The sealed memfd."""
        ...

    def wipe(self) -> None:
        """Overwrite everything that was written and close."""
        ...


class ChannelSize(NamedTuple):
    """What a channel that fits an enclave is made with: ``Channel(*size)``."""

    slot_count: int
    slot_bytes: int
    bulk_bytes: int


@dataclass(frozen=True, slots=True)
class EnclavePlan:
    """A loaded enclave that does not run yet. Whoever holds it starts it or calls ``memory.wipe()``."""

    memory: PlanMemory = field(repr=False)
    config: VmmConfig = field(repr=False)
    """Addresses are kept out of logs: they are what randomisation hides."""
    bulk_bytes: int
    """Of each channel region, for buffers that no slot has room for."""
    image_base: int = field(repr=False)
    image_bytes: int
    regions: tuple[Region, ...] = field(repr=False)
    debug: bool = False
    """The signed manifest says that it is a debug build: only such a one may be looked into with gdb."""

    @property
    def channel_size(self) -> ChannelSize:
        """The size of every channel that is attached to it."""
        return ChannelSize(self.config.slot_count, self.config.slot_bytes, self.bulk_bytes)
