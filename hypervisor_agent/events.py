"""The signed revocations of the SBS: read in a thread of their own, verified, handed to the event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

import structlog

from cafe_lib.errors import CafeError, SessionError, SignatureError
from cafe_lib.wire.messages import FrameReader, Revocation
from hypervisor_agent.sbs import Sbs
from hypervisor_agent.session import AttestedSession

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0

_log = structlog.get_logger()


class Sessions(Protocol):
    """Where the present session comes from."""

    def wait(self, seconds: float) -> AttestedSession | None:
        """Return a session as soon as there is one; None after ``seconds``."""

    def get(self) -> AttestedSession:
        """Return a session that is good now, a new one if need be. Raises any CafeError."""

    def reject(self, session: AttestedSession) -> None:
        """Say that the SBS no longer knows this session."""


class RevocationReader:
    """Follows the stream of one SBS: reconnects after every failure, never delivers a number twice."""

    def __init__(self, sbs: Sbs, sessions: Sessions, deliver: Callable[[Revocation], None]) -> None:
        self._sbs = sbs
        self._sessions = sessions
        self._deliver = deliver
        self._last = 0
        self._lost = False
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin in a daemon thread: a read that hangs must not hold up the agent's end."""
        threading.Thread(target=self._run, name="revocations", daemon=True).start()

    def stop(self) -> None:
        """Deliver nothing more."""
        self._stop.set()

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._stop.is_set():
            last = self._last
            try:
                session = self._sessions.get() if self._lost else self._sessions.wait(LONGEST_PAUSE_SECONDS)
                self._lost = False
                if session is None:
                    continue
                self._follow_or_reject(session)
            except CafeError as error:
                _log.warning("revocation stream failed", code=error.code, detail=error.detail)
            pause = FIRST_PAUSE_SECONDS if self._last > last else min(pause * 2, LONGEST_PAUSE_SECONDS)
            self._stop.wait(pause)

    def _follow_or_reject(self, session: AttestedSession) -> None:
        try:
            self.follow(session)
        except (SessionError, SignatureError):  # the SBS may sign with another key since the session began
            self._sessions.reject(session)
            self._lost = True  # nobody else might ask for a session while enclaves run
            raise

    def follow(self, session: AttestedSession) -> None:
        """Read one connection to its end; raises any CafeError."""
        trusted = session.trusted
        reader = FrameReader()
        with self._sbs.events(trusted.session_id, trusted.events_request(self._last)) as stream:
            for data in stream:
                for message in reader.feed(data):
                    revocation = trusted.accept_revocation(message, self._last)
                    self._last = revocation.number
                    if self._stop.is_set():
                        return
                    self._deliver(revocation)
        reader.finish()
