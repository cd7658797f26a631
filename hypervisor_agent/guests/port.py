"""What a guest's socket needs from the agent."""

from __future__ import annotations

from typing import Protocol, TypeVar

from hypervisor_agent.guests.messages import LaunchRequest


class Member(Protocol):
    """One guest process's part in an enclave that its VM's processes share."""

    @property
    def secret_binary_id(self) -> bytes:
        """Which release runs."""

    @property
    def stopped(self) -> bool:
        """True once the lease has ended: a fresh enclave needs a fresh launch."""

    @property
    def channel_fd(self) -> int:
        """The channel of this process alone, attached to the enclave that runs now; owned by the host."""

    @property
    def region_bytes(self) -> int:
        """The size of the channel."""


MemberT = TypeVar("MemberT", bound=Member)


class EnclaveHost(Protocol[MemberT]):
    """Admits guest processes to enclaves. Cancelling a coroutine undoes what it has begun."""

    async def launch(self, vm_id: str, request: LaunchRequest) -> MemberT:
        """Admit to the VM's enclave of a release; the first process has it deployed. Raises any CafeError."""

    async def rejoin(self, member: MemberT) -> None:
        """Attach to a fresh enclave if the last has ended, else through another channel.

        Raises any CafeError.
        """

    async def end(self, member: MemberT) -> None:
        """Let a process go; with the last one, enclave and lease. Twice is harmless."""
