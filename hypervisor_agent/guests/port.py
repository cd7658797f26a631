"""What a guest's socket needs from the agent."""

from __future__ import annotations

from typing import Protocol, TypeVar

from hypervisor_agent.guests.messages import LaunchRequest


class Tenancy(Protocol):
    """An enclave that one guest process uses, under one lease."""

    @property
    def secret_binary_id(self) -> bytes:
        """Which release runs."""

    @property
    def stopped(self) -> bool:
        """True once the lease has ended: a fresh enclave needs a fresh launch."""

    @property
    def channel_fd(self) -> int:
        """The channel of the enclave that runs now; owned by the tenancy."""

    @property
    def region_bytes(self) -> int:
        """The size of the channel."""


TenancyT = TypeVar("TenancyT", bound=Tenancy)


class EnclaveHost(Protocol[TenancyT]):
    """Starts, replaces and ends enclaves. Cancelling a coroutine undoes what it has begun."""

    async def launch(self, vm_id: str, request: LaunchRequest) -> TenancyT:
        """Deploy a release and start it. Raises any CafeError."""

    async def replace(self, tenancy: TenancyT) -> None:
        """End the present enclave of a tenancy and start a fresh one. Raises any CafeError."""

    async def end(self, tenancy: TenancyT) -> None:
        """Destroy the enclave and give the lease back; ending twice is harmless."""
