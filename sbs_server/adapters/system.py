"""Time and chance from the operating system, and rate limits in memory."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from cafe_lib.errors import BusyError


class SystemClock:
    """See the port `Clock`."""

    def now(self) -> int:
        """See the port."""
        return int(time.time())


class SystemRandom:
    """See the port `Random`."""

    def take(self, count: int) -> bytes:
        """See the port."""
        return secrets.token_bytes(count)


class RateLimits:
    """See the port `Limiter`; each process counts for itself."""

    def __init__(self, rates: Mapping[str, str]) -> None:
        """`rates` gives for each kind a rate such as "100/minute"; raises ValueError for another form."""
        self._rates: dict[str, RateLimitItem] = {kind: parse(rate) for kind, rate in rates.items()}
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def take(self, kind: str, caller: str) -> None:
        """See the port."""
        if not await self._limiter.hit(self._rates[kind], kind, caller):
            raise BusyError(f"too many requests of kind {kind}", hint="try again later")
