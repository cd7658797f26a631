"""How long an enclave may run: leases counted on CLOCK_BOOTTIME, which goes on while the host sleeps.

A lease is a duration that starts when the agent SENT the request it answers: the network's delay is taken
from the agent's time, so the agent always stops before the SBS gives the seat to somebody else.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

RENEW_AFTER = 1 / 3
"""The part of a lease after which it is renewed: two more tries fit before it ends."""

Clock = Callable[[], float]


def boottime() -> float:
    """Seconds since boot, suspend included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Lease:
    """Permission to run one enclave until ``expires_at`` (seconds of the agent's clock)."""

    lease_id: bytes
    sent_at: float
    seconds: float

    @property
    def expires_at(self) -> float:
        """When the enclave must be gone."""
        return self.sent_at + self.seconds

    @property
    def renew_at(self) -> float:
        """When to ask for more."""
        return self.sent_at + self.seconds * RENEW_AFTER


class LeaseBook:
    """Every lease this host holds. Not thread-safe: it lives on the event loop."""

    def __init__(self) -> None:
        self._leases: dict[bytes, Lease] = {}
        self._retry_at = 0.0

    def __contains__(self, lease_id: bytes) -> bool:
        return lease_id in self._leases

    def __len__(self) -> int:
        return len(self._leases)

    def add(self, lease: Lease) -> None:
        """Take up a lease, or a longer run of a known one; a renewal never shortens what was granted."""
        known = self._leases.get(lease.lease_id)
        if known is None or lease.expires_at > known.expires_at:
            self._leases[lease.lease_id] = lease

    def renew(self, granted: Iterable[tuple[bytes, int]], sent_at: float) -> None:
        """Extend the leases the SBS renewed; one that was given back meanwhile stays away.

        One that has got no longer, as its licence ends, is next renewed after a third of what is left of it.
        """
        for lease_id, seconds in granted:
            if lease_id in self._leases:
                self.add(Lease(lease_id, sent_at, seconds))
        for lease in tuple(self._leases.values()):
            if lease.renew_at <= sent_at:
                self._leases[lease.lease_id] = Lease(lease.lease_id, sent_at, lease.expires_at - sent_at)

    def drop(self, lease_id: bytes) -> bool:
        """Forget a lease; False when it is already gone."""
        return self._leases.pop(lease_id, None) is not None

    def expired(self, now: float) -> tuple[bytes, ...]:
        """Return the leases that have run out."""
        return tuple(lease.lease_id for lease in self._leases.values() if lease.expires_at <= now)

    def renewal_due(self, now: float) -> bool:
        """Tell whether a lease has used up its third, and the last failed try is long enough ago."""
        return now >= self._retry_at and any(lease.renew_at <= now for lease in self._leases.values())

    def postpone(self, until: float) -> None:
        """Try no renewal before ``until``: the last one failed."""
        self._retry_at = until

    def wake_at(self) -> float | None:
        """Return when something is due next; None while there is no lease."""
        if not self._leases:
            return None
        renewal = max(self._retry_at, min(lease.renew_at for lease in self._leases.values()))
        return min(renewal, *(lease.expires_at for lease in self._leases.values()))


@dataclass(slots=True)
class RestartBudget:
    """At most ``restarts`` fresh enclaves within any ``window_seconds``: a fault loop must end."""

    restarts: int = 5
    window_seconds: float = 60.0
    _used: deque[float] = field(default_factory=deque)

    def take(self, now: float) -> bool:
        """Use one restart; False when none is left in this window."""
        while self._used and self._used[0] <= now - self.window_seconds:
            self._used.popleft()
        if len(self._used) >= self.restarts:
            return False
        self._used.append(now)
        return True
