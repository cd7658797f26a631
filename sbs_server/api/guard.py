"""Before any endpoint: bounds on bodies and callers; after all: every error leaves as a problem document."""

from __future__ import annotations

import asyncio
import traceback
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cafe_lib.errors import CafeError
from cafe_lib.wire import limits
from sbs_server.api.problems import BodyTooLongError, BodyTooSlowError, failure, problem, status_of
from sbs_server.domain.ports import Limiter

_ENVELOPE_BYTES: Final = 256
_LONG: Final = limits.MAX_EVIDENCE_BYTES + _ENVELOPE_BYTES
_SHORT: Final = 2 * limits.MAX_MESSAGE_BYTES
_UPLOAD: Final = "/v1/releases"
_SILENCE_SECONDS: Final = 30
_BODY_SECONDS: Final = 60
_ADDRESS: Final = "address"
_log = structlog.get_logger()


class Guard:
    """ASGI middleware, the outermost."""

    def __init__(self, app: ASGIApp, limiter: Limiter) -> None:
        self._app = app
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            client = scope.get("client")
            await self._limiter.take(_ADDRESS, client[0] if client else "unknown")
            await self._app(scope, _Body(scope, receive).receive, watched_send)
        except CafeError as error:
            _log.warning("request failed", code=error.code, detail=error.detail, started=started)
            if not started:
                await problem(error, status_of(error))(scope, receive, send)
                return
            raise _StreamFailedError from None
        except Exception as error:  # noqa: BLE001 -- the last line of defence
            # only where: the text of an unforeseen error may hold anything
            where = [
                f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)
            ]
            _log.error("request failed", error=type(error).__name__, where=where[-5:])
            if not started:
                await failure()(scope, receive, send)
                return
            raise _StreamFailedError from None


class _StreamFailedError(Exception):
    """Has the server cut a connection whose answer cannot be completed; says nothing itself."""


class _Body:
    """A request's body, counted and timed as it comes."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        path = scope["path"].rstrip("/")
        self._upload = path == _UPLOAD
        self._left = _LONG if path.endswith(("/evidence", "/renewals")) else _SHORT
        self._until = asyncio.get_running_loop().time() + _BODY_SECONDS
        self._done = False

    async def receive(self) -> Message:
        if self._done:
            return await self._receive()
        try:
            async with asyncio.timeout(self._patience()):
                message = await self._receive()
        except TimeoutError as error:
            raise BodyTooSlowError from error
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0 and not self._upload:
                raise BodyTooLongError
            self._done = not message.get("more_body", False)
        return message

    def _patience(self) -> float:
        """Return the seconds to wait: an upload may be long but not silent, the rest has to be there soon."""
        if self._upload:
            return _SILENCE_SECONDS
        return max(0.0, self._until - asyncio.get_running_loop().time())
