"""A stored session made usable: its secret opened, its keys derived, its state and time checked."""

from __future__ import annotations

from dataclasses import dataclass, field

from cafe_lib.errors import PolicyError, SessionError
from cafe_lib.wire.keys import SessionKeys
from sbs_server.attestation import sessions
from sbs_server.domain.ports import Keys, Transaction
from sbs_server.domain.values import Host, Session


@dataclass(frozen=True, slots=True)
class LiveSession:
    """What a message of this session is checked and answered with."""

    row: Session
    secret: bytes = field(repr=False)
    keys: SessionKeys = field(repr=False)


def verify_live(row: Session | None, state: str, now: int) -> Session:
    """Return the session if it is in that state and its time is not over; raises SessionError."""
    if row is None or row.state != state or row.expires_at <= now:
        raise SessionError("the session is unknown, over, or not in the right state")
    return row


def verify_enrolled(host: Host | None) -> Host:
    """Return the host; raises PolicyError if it is unknown or revoked."""
    if host is None or host.revoked_at is not None:
        raise PolicyError("the host is revoked")
    return host


async def load_session(
    tx: Transaction, keys: Keys, session_id: bytes, now: int, state: str = sessions.ATTESTED
) -> LiveSession:
    """Return a session in that state; raises SessionError."""
    row = verify_live(await tx.sessions.get(session_id), state, now)
    secret = keys.open(session_id, row.sealed_secret)
    return LiveSession(row, secret, SessionKeys.derive(secret, row.transcript))
