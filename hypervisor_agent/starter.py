"""What a tenancy needs of the parts that run enclaves."""

from __future__ import annotations

import select
from typing import Protocol

from cafe_lib.image.manifest import Manifest
from hypervisor_agent.enclave.channel import Channel
from hypervisor_agent.enclave.enclave import Enclave
from hypervisor_agent.plan import EnclavePlan


class Starter(Protocol):
    """Makes enclaves and channels; on an error nothing is left."""

    def start(self, plan: EnclavePlan) -> Enclave:
        """Run a plan, or wipe it; blocks until calls are taken. Raises EnclaveError or HostError."""

    def channel(self, manifest: Manifest) -> Channel:
        """Make a region for one guest process; does not block. Raises HostError."""


def has_news(enclave: Enclave) -> bool:
    """Say, without waiting, whether a running enclave's VMM has said something: most likely its last word."""
    poll = select.poll()
    poll.register(enclave.fileno(), select.POLLIN)
    return bool(poll.poll(0))
