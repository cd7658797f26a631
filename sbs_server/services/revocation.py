"""Ends leases before their time and tells the hosts that hold them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Final

from cafe_lib.errors import NotFoundError
from cafe_lib.wire import limits
from sbs_server.domain.ports import Bell, Clock, Transaction
from sbs_server.domain.values import Event, Lease, LeaseEndReason

LICENCE, RELEASE, HOST, LEASE = "licence", "release", "host", "lease"
_NO_RELEASE: Final = b""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why leases end: the kind of the event, and the release when it is that which ended."""

    kind: str
    secret_binary_id: bytes = _NO_RELEASE


class Revoker:
    """Marks leases and writes events in a caller's transaction; the caller rings once it is committed."""

    def __init__(self, clock: Clock, bell: Bell) -> None:
        self._clock = clock
        self._bell = bell

    async def end(self, tx: Transaction, leases: Iterable[Lease], cause: Cause) -> set[bytes]:
        """End these leases; return the hosts to ring.

        Their seats stay taken until they are given back, or their time is over: an enclave that cannot be
        reached may run until then.
        """
        hosts = set()
        for host_id, group in groupby(sorted(leases, key=attrgetter("host_id")), attrgetter("host_id")):
            ended = []
            for found in group:
                lease = await tx.leases.lock(found.id)  # it may have been given back since it was found
                if lease is not None and lease.end_reason is None:
                    await tx.leases.put(replace(lease, end_reason=LeaseEndReason.REVOKED.value))
                    ended.append(lease.id)
            await self.tell(tx, host_id, ended, cause)
            hosts.add(host_id)
        return hosts

    async def tell(self, tx: Transaction, host_id: bytes, lease_ids: list[bytes], cause: Cause) -> None:
        """Write the events for one host; raises NotFoundError."""
        host = await tx.hosts.lock(host_id)
        if host is None:
            raise NotFoundError("no such host")
        number = host.last_event
        for start in range(0, max(1, len(lease_ids)), limits.MAX_LEASES):
            number += 1
            some = b"".join(lease_ids[start : start + limits.MAX_LEASES])
            now = self._clock.now()
            await tx.events.add(Event(host_id, number, cause.kind, some, cause.secret_binary_id, now))
        await tx.hosts.put(replace(host, last_event=number))

    def ring(self, hosts: Iterable[bytes]) -> None:
        """Wake the streams of these hosts; call it after the commit."""
        for host_id in hosts:
            self._bell.ring(host_id)
