"""Renewal: one fresh quote renews every lease of a host; and a seat given back."""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import replace
from typing import TypeVar

from cafe_lib.errors import NotFoundError, SessionError
from cafe_lib.evidence.policy import Policy
from cafe_lib.wire import keys as schedule
from cafe_lib.wire import limits
from cafe_lib.wire.messages import Evidence, LeaseEnd, RenewalChallenge, RenewalRequest, RenewalResult
from sbs_server.attestation import sessions
from sbs_server.domain.ports import Store, Transaction
from sbs_server.domain.values import DEBUG, LeaseEndReason, Session
from sbs_server.services.audit import AuditTrail, Decision
from sbs_server.services.live import LiveSession, load_session, verify_enrolled, verify_live
from sbs_server.services.policies import policy_in_force
from sbs_server.services.sessions import SessionTools, attested_host, previous_clock

Message = TypeVar("Message", RenewalRequest, Evidence, LeaseEnd)


class Renewals:
    """Asks for fresh quotes and renews."""

    def __init__(self, store: Store, audit: AuditTrail, tools: SessionTools) -> None:
        self._store = store
        self._audit = audit
        self._tools = tools

    async def challenge(self, session_id: bytes, data: bytes) -> bytes:
        """Answer a RenewalRequest with a fresh nonce; an older nonce of the session is void from now on.

        :raises SessionError: no such session, or a number that was used before.
        """
        async with self._audit.decision("renewal.challenge") as decision:
            live, request = await self._open(RenewalRequest, session_id, data, decision)
            now, nonce = self._tools.clock.now(), self._tools.random.take(limits.NONCE_BYTES)
            async with self._store.write() as tx:
                row = verify_live(await tx.sessions.lock(session_id), sessions.ATTESTED, now)
                if request.number <= row.renewal_number:
                    raise SessionError("a renewal number was used before")
                until = now + self._tools.terms.offer_seconds
                await tx.sessions.put(
                    replace(row, renewal_number=request.number, renewal_nonce=nonce, renewal_until=until)
                )
        return RenewalChallenge(session_id, nonce, request.number).seal(live.keys.server_mac)

    async def renew(self, session_id: bytes, data: bytes) -> bytes:
        """Judge the evidence for the session's nonce, once, and renew.

        :raises SessionError: no nonce is open; or the policy has changed: attest anew.
        :raises QuoteError, PolicyError: the host is not good any more; its leases run out.
        """
        async with self._audit.decision("renewal.renew") as decision:
            live, evidence = await self._open(Evidence, session_id, data, decision)
            row, nonce = await self._use_nonce(session_id)
            verified = await self._verify(row, nonce, evidence)
            async with self._store.write() as tx:
                result = await self._renew(tx, row, verified)
                await self._audit.allow(tx, decision)
        return result.seal(live.keys.server_mac)

    async def _open(
        self, kind: type[Message], session_id: bytes, data: bytes, decision: Decision
    ) -> tuple[LiveSession, Message]:
        """Load the session and check the message's MAC: from then on it is this host that asks."""
        async with self._store.read() as tx:
            live = await load_session(tx, self._tools.keys, session_id, self._tools.clock.now())
            host = await tx.hosts.get(live.row.host_id)
        decision.about(host_id=live.row.host_id)
        message = kind.open(live.keys.client_mac, data)
        decision.actor = f"host {host.name if host else ''}"
        if not hmac.compare_digest(message.session_id, session_id):
            raise SessionError("a message of another session")
        return live, message

    async def _use_nonce(self, session_id: bytes) -> tuple[Session, bytes]:
        """Take the nonce from the session before the evidence is judged: there is one try, good or bad."""
        now = self._tools.clock.now()
        async with self._store.write() as tx:
            row = verify_live(await tx.sessions.lock(session_id), sessions.ATTESTED, now)
            nonce = row.renewal_nonce
            if nonce is None or row.renewal_until <= now:
                raise SessionError("no renewal is open, or its nonce is too old")
            await tx.sessions.put(replace(row, renewal_nonce=None, renewal_until=0))
        return row, nonce

    async def _verify(self, row: Session, nonce: bytes, evidence: Evidence) -> sessions.VerifiedEvidence:
        async with self._store.read() as tx:
            policy = _verify_version(await policy_in_force(tx), row)
            host = verify_enrolled(await tx.hosts.get(row.host_id))
        asked = sessions.Asked(
            row.id,
            schedule.renewal_qualifying_data(row.transcript, nonce),
            sessions.parse_selection(row.selection),
            host.ak_public,
            policy,
            previous_clock(host),
        )
        return await asyncio.to_thread(sessions.verify_evidence, evidence, asked)

    async def _renew(
        self, tx: Transaction, asked: Session, verified: sessions.VerifiedEvidence
    ) -> RenewalResult:
        now = self._tools.clock.now()
        row = verify_live(await tx.sessions.lock(asked.id), sessions.ATTESTED, now)
        policy = _verify_version(await policy_in_force(tx), row)
        host = verify_enrolled(await tx.hosts.lock(row.host_id))
        await tx.hosts.put(attested_host(host, verified, now))
        await tx.sessions.put(replace(row, attested_at=now))
        await tx.leases.expire(now)
        renewed = []
        for lease in await tx.leases.find(host_id=host.id, ended_at=None, end_reason=None):
            seconds = await self._extend(tx, lease.id, policy, now)
            if seconds > 0:
                renewed.append((lease.id, seconds))
        over = await tx.leases.over_since(host.id, now - self._tools.terms.lease_seconds, limits.MAX_LEASES)
        ended = tuple(lease.id for lease in over if lease.end_reason != LeaseEndReason.RETURNED)
        return RenewalResult(row.id, tuple(renewed[: limits.MAX_LEASES]), ended, asked.renewal_number)

    async def _extend(self, tx: Transaction, lease_id: bytes, policy: Policy, now: int) -> int:
        """Return for how many more seconds a lease runs; 0 when it cannot be renewed.

        What was granted is never shortened, even by shorter terms: the host counts on it.
        """
        lease = await tx.leases.lock(lease_id)  # it may have been given back since it was found
        if lease is None or lease.end_reason is not None or lease.expires_at <= now:
            return 0
        licence = await tx.licences.get(lease.licence_id)
        if licence is None or licence.revoked_at is not None or licence.expires_at <= now:
            return 0
        release = await tx.releases.get(lease.release_id)
        if release is None or (release.build_mode == DEBUG and not policy.allow_debug):
            return 0
        terms = self._tools.terms
        expires_at = max(lease.expires_at, min(now + terms.lease_seconds, licence.expires_at))
        frees_at = max(lease.frees_at, expires_at + terms.lease_margin_seconds)
        await tx.leases.put(replace(lease, expires_at=expires_at, frees_at=frees_at))
        return expires_at - now

    async def end_lease(self, session_id: bytes, data: bytes) -> None:
        """Take back a seat; again is no error. Raises SessionError, or NotFoundError for another host's."""
        async with self._audit.decision("lease.end") as decision:
            live, message = await self._open(LeaseEnd, session_id, data, decision)
            decision.about(lease_id=message.lease_id)
            async with self._store.write() as tx:
                lease = await tx.leases.lock(message.lease_id)
                if lease is None or lease.host_id != live.row.host_id:
                    raise NotFoundError("no such lease of this host")
                if lease.ended_at is not None:
                    return
                reason = lease.end_reason or LeaseEndReason.RETURNED.value
                await tx.leases.put(replace(lease, ended_at=self._tools.clock.now(), end_reason=reason))
                await self._audit.allow(tx, decision)


def _verify_version(policy: Policy, row: Session) -> Policy:
    if policy.version != row.policy_version:
        raise SessionError("the policy has changed since the session was attested")
    return policy
