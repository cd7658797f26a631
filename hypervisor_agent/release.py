"""A release as it was granted to one lease: ciphertext and keys, from which a fresh enclave can be made."""

from __future__ import annotations

from dataclasses import dataclass, field

from cafe_lib.image.confidential import Confidential
from cafe_lib.image.manifest import Manifest
from hypervisor_agent.leases import Lease
from hypervisor_agent.loader.load import ImageLoader
from hypervisor_agent.plan import EnclavePlan


@dataclass(frozen=True, slots=True)
class Order:
    """What a guest asked for; the VM is known from the socket it came in by."""

    vm_id: str
    secret_binary_id: bytes
    interface_digest: bytes


@dataclass(frozen=True, slots=True)
class Release:
    """Kept as long as its lease. Plaintext is never in here: it exists in enclave memory only."""

    order: Order
    name: str
    """publisher/name@version."""
    manifest: Manifest = field(repr=False)
    confidential: Confidential = field(repr=False)
    ciphertext: tuple[bytes, ...] = field(repr=False)
    lease: Lease

    def load(self) -> EnclavePlan:
        """Decrypt once more, into memory of its own; raises HostError."""
        loader = ImageLoader(self.manifest, self.confidential)
        try:
            for index, chunk in enumerate(self.ciphertext):
                loader.take_chunk(index, chunk)
            return loader.finish()
        except BaseException:
            loader.discard()
            raise


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a deployment gives: the release, and its first enclave, loaded but not started."""

    release: Release
    plan: EnclavePlan

    def discard(self) -> None:
        """Wipe the enclave that will not be started, or that has been destroyed."""
        self.plan.memory.wipe()
