"""Renewal: one fresh quote renews every lease of a host; and a seat given back."""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import replace

from cafe_lib.errors import NotFoundError, PolicyError, SessionError
from cafe_lib.wire import keys as schedule
from cafe_lib.wire import limits
from cafe_lib.wire.messages import Evidence, LeaseEnd, RenewalChallenge, RenewalRequest, RenewalResult
from sbs_server.attestation import sessions
from sbs_server.domain.ports import Store, Transaction
from sbs_server.domain.values import Host, Lease, LeaseEndReason, Licence, Session
from sbs_server.services.audit import AuditTrail, Decision
from sbs_server.services.live import LiveSession, load_session, verify_live
from sbs_server.services.policies import policy_in_force
from sbs_server.services.sessions import SessionTools, attested_host, previous_clock


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
        now = self._tools.clock.now()
        async with self._audit.decision("renewal.challenge") as decision:
            live, request = await self._request(session_id, data, decision)
            nonce = self._tools.random.take(limits.NONCE_BYTES)
            async with self._store.write() as tx:
                row = verify_live(await tx.sessions.lock(session_id), sessions.ATTESTED, now)
                if request.number <= row.renewal_number:
                    raise SessionError("a renewal number was used before")
                until = now + self._tools.terms.offer_seconds
                await tx.sessions.put(
                    replace(row, renewal_number=request.number, renewal_nonce=nonce, renewal_until=until)
                )
        return RenewalChallenge(session_id, nonce, request.number).seal(live.keys.server_mac)

    async def _request(
        self, session_id: bytes, data: bytes, decision: Decision
    ) -> tuple[LiveSession, RenewalRequest]:
        live = await self._load(session_id, decision)
        request = RenewalRequest.open(live.keys.client_mac, data)
        if not hmac.compare_digest(request.session_id, session_id):
            raise SessionError("a request of another session")
        return live, request

    async def renew(self, session_id: bytes, data: bytes) -> bytes:
        """Judge the evidence for the session's nonce, once, and renew.

        :raises SessionError: no nonce is open; or the policy has changed: attest anew.
        :raises QuoteError, PolicyError: the host is not good any more; its leases run out.
        """
        async with self._audit.decision("renewal.renew") as decision:
            live = await self._load(session_id, decision)
            evidence = Evidence.open(live.keys.client_mac, data)
            verified = await self._verify(live, evidence)
            async with self._store.write() as tx:
                result = await self._renew(tx, live, verified)
                await self._audit.allow(tx, decision)
        return result.seal(live.keys.server_mac)

    async def _load(self, session_id: bytes, decision: Decision) -> LiveSession:
        async with self._store.read() as tx:
            live = await load_session(tx, self._tools.keys, session_id, self._tools.clock.now())
        decision.about(host_id=live.row.host_id)
        return live

    async def _verify(self, live: LiveSession, evidence: Evidence) -> sessions.VerifiedEvidence:
        nonce = _open_nonce(live.row, self._tools.clock.now())
        async with self._store.read() as tx:
            policy = await policy_in_force(tx)
            host = _enrolled(await tx.hosts.get(live.row.host_id))
        if policy.version != live.row.policy_version:
            raise SessionError("the policy has changed since the session was attested")
        asked = sessions.Asked(
            live.row.id,
            schedule.renewal_qualifying_data(live.row.transcript, nonce),
            sessions.parse_selection(live.row.selection),
            host.ak_public,
            policy,
            previous_clock(host),
        )
        return await asyncio.to_thread(sessions.verify_evidence, evidence, asked)

    async def _renew(
        self, tx: Transaction, live: LiveSession, verified: sessions.VerifiedEvidence
    ) -> RenewalResult:
        now = self._tools.clock.now()
        row = verify_live(await tx.sessions.lock(live.row.id), sessions.ATTESTED, now)
        if _open_nonce(row, now) != live.row.renewal_nonce:
            raise SessionError("the renewal's nonce was replaced")
        host = _enrolled(await tx.hosts.lock(row.host_id))
        await tx.hosts.put(attested_host(host, verified, now))
        await tx.sessions.put(replace(row, attested_at=now, renewal_nonce=None, renewal_until=0))
        await tx.leases.expire(now)
        renewed = []
        for lease in await tx.leases.find(host_id=host.id, ended_at=None, end_reason=None):
            seconds = await self._extend(tx, lease, now)
            if seconds > 0:
                renewed.append((lease.id, seconds))
        over = await tx.leases.over_since(host.id, now - self._tools.terms.lease_seconds, limits.MAX_LEASES)
        ended = tuple(lease.id for lease in over if lease.end_reason != LeaseEndReason.RETURNED)
        return RenewalResult(row.id, tuple(renewed[: limits.MAX_LEASES]), ended, row.renewal_number)

    async def _extend(self, tx: Transaction, lease: Lease, now: int) -> int:
        """Return for how many more seconds a lease runs; 0 when it cannot be renewed."""
        if lease.expires_at <= now:
            return 0
        licence: Licence | None = await tx.licences.get(lease.licence_id)
        if licence is None or licence.revoked_at is not None or licence.expires_at <= now:
            return 0
        terms = self._tools.terms
        expires_at = min(now + terms.lease_seconds, licence.expires_at)
        frees_at = expires_at + terms.lease_margin_seconds
        await tx.leases.put(replace(lease, expires_at=expires_at, frees_at=frees_at))
        return expires_at - now

    async def end_lease(self, session_id: bytes, data: bytes) -> None:
        """Take back a seat; again is no error. Raises SessionError, or NotFoundError for another host's."""
        async with self._audit.decision("lease.end") as decision:
            live = await self._load(session_id, decision)
            message = LeaseEnd.open(live.keys.client_mac, data)
            decision.about(lease_id=message.lease_id)
            if not hmac.compare_digest(message.session_id, session_id):
                raise SessionError("a message of another session")
            async with self._store.write() as tx:
                lease = await tx.leases.lock(message.lease_id)
                if lease is None or lease.host_id != live.row.host_id:
                    raise NotFoundError("no such lease of this host")
                if lease.ended_at is not None:
                    return
                reason = lease.end_reason or LeaseEndReason.RETURNED.value
                await tx.leases.put(replace(lease, ended_at=self._tools.clock.now(), end_reason=reason))
                await self._audit.allow(tx, decision)


def _open_nonce(row: Session, now: int) -> bytes:
    if row.renewal_nonce is None or row.renewal_until <= now:
        raise SessionError("no renewal is open, or its nonce is too old")
    return row.renewal_nonce


def _enrolled(host: Host | None) -> Host:
    if host is None or host.revoked_at is not None:
        raise PolicyError("the host is revoked")
    return host
