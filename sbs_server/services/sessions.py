"""Sessions with hosts: the offer (deployment steps 3 and 4), the evidence and its verdict (5 to 8)."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass, replace
from typing import Final

from cafe_lib.errors import BusyError, ConflictError, PolicyError, SessionError, SignatureError
from cafe_lib.errors import VerificationError as Verification
from cafe_lib.evidence.policy import Policy, verify_clock
from cafe_lib.wire import keys as schedule
from cafe_lib.wire import limits
from cafe_lib.wire.messages import STATUS_ACCEPTED, STATUS_REFUSED, AttestResult, Evidence, SessionRequest
from sbs_server.attestation import sessions
from sbs_server.domain.ports import Clock, Keys, Limiter, Random, Steps, Store, Transaction
from sbs_server.domain.values import Host, Session, Terms
from sbs_server.services.audit import AuditTrail, Decision
from sbs_server.services.live import LiveSession, load_session, verify_enrolled, verify_live
from sbs_server.services.policies import policy_in_force

_NONCE, _VERIFY, _RESULT = 4, 7, 8
_SESSIONS: Final = "session"
_MAX_CLOCK: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class SessionTools:
    """What sessions are made with."""

    keys: Keys
    random: Random
    clock: Clock
    limiter: Limiter
    steps: Steps
    terms: Terms


class Sessions:
    """Opens sessions and judges evidence."""

    def __init__(self, store: Store, audit: AuditTrail, tools: SessionTools) -> None:
        self._store = store
        self._audit = audit
        self._tools = tools

    # -------------------------------------------------------------- steps 3 and 4

    async def open(self, data: bytes) -> bytes:
        """Answer a signed SessionRequest with a signed SessionOffer.

        :raises SignatureError: not signed by an enrolled host.
        :raises PolicyError: the host is revoked, or there is no policy.
        :raises SessionError: the request was sent before.
        :raises BusyError: the host has too many offers open.
        """
        start = time.perf_counter()
        async with self._audit.decision("session.open") as decision:
            request = SessionRequest.read_unverified(data)
            async with self._store.read() as tx:
                host = await tx.hosts.get(request.host_id)
                request = _verify_host(host, data)
                if await tx.sessions.count(host_id=request.host_id, request_digest=_digest(data)):
                    raise SessionError("this session request was sent before")
                policy = await self._admit(tx, decision, host)
            await self._tools.limiter.take(_SESSIONS, request.host_id.hex())
            session, message = self._offer(data, request, policy)
            async with self._store.write() as tx:
                await self._add(tx, session)
                await self._audit.allow(tx, decision)
        self._tools.steps.step(_NONCE, (time.perf_counter() - start) * 1000)
        return message

    async def _admit(self, tx: Transaction, decision: Decision, host: Host | None) -> Policy:
        if host is None:
            raise SignatureError("no such host")
        decision.actor = f"host {host.name}"
        decision.about(host_id=host.id)
        if host.revoked_at is not None:
            raise PolicyError("the host is revoked")
        return await policy_in_force(tx)

    def _offer(self, data: bytes, request: SessionRequest, policy: Policy) -> tuple[Session, bytes]:
        tools, now = self._tools, self._tools.clock.now()
        material = sessions.OfferMaterial(
            tools.random.take(limits.ID_BYTES),
            tools.random.take(limits.NONCE_BYTES),
            tools.random.take(limits.KEY_BYTES),
            tools.keys.root_public,
            tools.keys.signing_key,
            tools.keys.certificate,
        )
        selection = policy.selection()
        offer = sessions.make_offer(data, request, material, selection, tools.terms.session_seconds)
        session = Session(
            material.session_id,
            request.host_id,
            _digest(data),
            material.nonce,
            tools.keys.seal(material.session_id, material.secret),
            offer.transcript,
            sessions.encode_selection(selection),
            sessions.OFFERED,
            now,
            now + tools.terms.offer_seconds,
        )
        return session, offer.message

    async def _add(self, tx: Transaction, session: Session) -> None:
        """Store an offer. What was sent before stays known for long after the session is over."""
        await tx.purge(session.created_at, self._tools.terms.retention_seconds)
        verify_enrolled(await tx.hosts.lock(session.host_id))
        offers = await tx.sessions.count(host_id=session.host_id, state=sessions.OFFERED)
        if offers >= self._tools.terms.max_offers_per_host:
            raise BusyError("the host has too many sessions that were not attested")
        try:
            await tx.sessions.add(session)
        except ConflictError as error:
            raise SessionError("this session request was sent before, or a nonce came twice") from error

    # -------------------------------------------------------------- steps 5 to 8

    async def attest(self, session_id: bytes, data: bytes) -> bytes:
        """Judge the evidence of a session, once; the verdict is an AttestResult, also when it is no.

        :raises SessionError: no such session, over, or judged before.
        :raises SignatureError: the message is not of this session's host: nothing is changed by it.
        """
        now = self._tools.clock.now()
        async with self._audit.decision("session.attest") as decision:
            async with self._store.read() as tx:
                live = await load_session(tx, self._tools.keys, session_id, now, sessions.OFFERED)
                host = await tx.hosts.get(live.row.host_id)
            evidence = Evidence.open(live.keys.client_mac, data)
            decision.about(host_id=live.row.host_id)
        try:
            async with self._audit.decision(
                "session.attest", f"host {host.name if host else ''}"
            ) as decision:
                decision.about(host_id=live.row.host_id)
                verdict = await self._judge(live, evidence, decision)
        except (Verification, PolicyError) as error:
            await self._refuse(session_id)
            verdict = AttestResult(session_id, STATUS_REFUSED, error.code, 0, 0)
        start = time.perf_counter()
        message = verdict.seal(live.keys.server_mac)
        self._tools.steps.step(_RESULT, (time.perf_counter() - start) * 1000)
        return message

    async def _judge(self, live: LiveSession, evidence: Evidence, decision: Decision) -> AttestResult:
        start = time.perf_counter()
        async with self._store.read() as tx:
            policy = await policy_in_force(tx)
            host = verify_enrolled(await tx.hosts.get(live.row.host_id))
        asked = sessions.Asked(
            live.row.id,
            schedule.qualifying_data(live.row.transcript),
            sessions.parse_selection(live.row.selection),
            host.ak_public,
            policy,
            previous_clock(host),
        )
        verified = await asyncio.to_thread(sessions.verify_evidence, evidence, asked)
        async with self._store.write() as tx:
            await self._accept(tx, live, verified)
            await self._audit.allow(tx, decision)
        self._tools.steps.step(_VERIFY, (time.perf_counter() - start) * 1000)
        age = min(policy.max_quote_age_seconds, self._tools.terms.quote_max_age_seconds)
        return AttestResult(live.row.id, STATUS_ACCEPTED, "", policy.version, age)

    async def _accept(self, tx: Transaction, live: LiveSession, verified: sessions.VerifiedEvidence) -> None:
        now = self._tools.clock.now()
        row = verify_live(await tx.sessions.lock(live.row.id), sessions.OFFERED, now)
        host = verify_enrolled(await tx.hosts.lock(row.host_id))
        await tx.hosts.put(attested_host(host, verified, now))
        await tx.sessions.put(
            replace(
                row,
                state=sessions.move(row.state, sessions.ATTESTED),
                expires_at=row.created_at + self._tools.terms.session_seconds,
                attested_at=now,
                policy_version=verified.policy.version,
            )
        )
        attested = await tx.sessions.find(host_id=row.host_id, state=sessions.ATTESTED)
        for old in attested[: -self._tools.terms.max_sessions_per_host]:
            await tx.sessions.put(replace(old, state=sessions.move(old.state, sessions.ENDED)))

    async def _refuse(self, session_id: bytes) -> None:
        async with self._store.write() as tx:
            row = await tx.sessions.lock(session_id)
            if row is not None and row.state == sessions.OFFERED:
                await tx.sessions.put(replace(row, state=sessions.move(row.state, sessions.REFUSED)))


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _verify_host(host: Host | None, data: bytes) -> SessionRequest:
    if host is None:
        raise SignatureError("no such host")
    return SessionRequest.verify(host.host_key, data)


def previous_clock(host: Host) -> Host | None:
    """Return the TPM's time when this host was last attested; a Host has what `verify_clock` compares."""
    return host if host.attested_at is not None else None


def attested_host(host: Host, verified: sessions.VerifiedEvidence, now: int) -> Host:
    """Return the host with the time its TPM has just shown; raises QuoteError if that went back meanwhile."""
    quote = verified.quote
    verify_clock(previous_clock(host), quote)
    return replace(
        host,
        attested_at=now,
        clock=min(quote.clock, _MAX_CLOCK),
        reset_count=quote.reset_count,
        restart_count=quote.restart_count,
    )
