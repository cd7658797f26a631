"""The stream of signed revocations to one host."""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from cafe_lib.errors import BusyError, SessionError
from cafe_lib.wire import limits
from cafe_lib.wire.events import KEEP_ALIVE
from cafe_lib.wire.messages import EventsRequest, Revocation, encode_frame
from sbs_server.domain.ports import Bell, Clock, Keys, Store
from sbs_server.domain.values import Event, Terms
from sbs_server.services.live import LiveSession, load_session

_PAGE: Final = 100


class LocalBell:
    """See the port `Bell`; wakes the listeners of this process. Others look by themselves, at each pause."""

    def __init__(self, pause_seconds: float) -> None:
        self._pause = pause_seconds
        self._rung: dict[bytes, set[asyncio.Event]] = {}
        self._closed = False

    def ring(self, host_id: bytes) -> None:
        """See the port."""
        for event in self._rung.get(host_id, ()):
            event.set()

    def close(self) -> None:
        """End every wait for good: the server is going down."""
        self._closed = True
        for events in self._rung.values():
            for event in events:
                event.set()

    @asynccontextmanager
    async def listen(self, host_id: bytes) -> AsyncIterator[AsyncIterator[None]]:
        """See the port."""
        event = asyncio.Event()
        self._rung.setdefault(host_id, set()).add(event)
        try:
            yield self._wait(event)
        finally:
            self._rung[host_id].discard(event)
            if not self._rung[host_id]:
                del self._rung[host_id]

    async def _wait(self, event: asyncio.Event) -> AsyncIterator[None]:
        while not self._closed:
            try:
                async with asyncio.timeout(self._pause):
                    await event.wait()
            except TimeoutError:
                pass
            event.clear()
            if not self._closed:
                yield


class EventStreams:
    """Sends hosts what was revoked: what they missed, then what comes."""

    def __init__(self, store: Store, keys: Keys, clock: Clock, bell: Bell, terms: Terms) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._bell = bell
        self._terms = terms
        self._open: Counter[bytes] = Counter()

    async def follow(self, session_id: bytes, data: bytes) -> AsyncIterator[bytes]:
        """Return the frames that answer an EventsRequest, until the session is over.

        A revoked host gets them, too: it has to learn that it is.

        :raises SessionError, SignatureError: not a request of an attested session.
        :raises BusyError: the host has too many streams open.
        """
        async with self._store.read() as tx:
            live = await load_session(tx, self._keys, session_id, self._clock.now())
        request = EventsRequest.open(live.keys.client_mac, data)
        if not hmac.compare_digest(request.session_id, session_id):
            raise SessionError("a request of another session")
        if self._open[live.row.host_id] >= self._terms.max_streams_per_host:
            raise BusyError("the host has too many event streams open")
        return self._frames(live, min(request.after, 2**63 - 1))

    async def _frames(self, live: LiveSession, after: int) -> AsyncIterator[bytes]:
        host_id = live.row.host_id
        self._open[host_id] += 1
        try:
            yield KEEP_ALIVE
            async with self._bell.listen(host_id) as rings:
                while True:
                    while events := await self._after(host_id, after):
                        for event in events:
                            after = event.number
                            yield encode_frame(self._sign(event))
                    if live.row.expires_at <= self._clock.now() or await anext(rings, "closed") == "closed":
                        return
                    yield KEEP_ALIVE
        finally:
            self._open[host_id] -= 1
            if not self._open[host_id]:
                del self._open[host_id]

    async def _after(self, host_id: bytes, number: int) -> list[Event]:
        async with self._store.read() as tx:
            return await tx.events.after(host_id, number, _PAGE)

    def _sign(self, event: Event) -> bytes:
        ids = tuple(
            event.lease_ids[start : start + limits.ID_BYTES]
            for start in range(0, len(event.lease_ids), limits.ID_BYTES)
        )
        message = Revocation(event.number, event.host_id, event.kind, ids, event.secret_binary_id)
        return message.sign(self._keys.signing_key)
