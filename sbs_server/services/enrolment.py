"""Enrolment of hosts: approved TPM, keys of the right kind, credential activation."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from cafe_lib.errors import BusyError, ForbiddenError, NotFoundError
from cafe_lib.wire import limits
from cafe_lib.wire.messages import EnrolmentProof, EnrolmentRequest
from sbs_server.attestation import enrolments, sessions
from sbs_server.domain.ports import Clock, Keys, Random, Store, Transaction
from sbs_server.domain.values import Approval, Enrolment, Host, Terms
from sbs_server.services.audit import AuditTrail

_SECRET_BYTES: Final = 32


class Enrolments:
    """Begins and completes activations."""

    def __init__(
        self, store: Store, audit: AuditTrail, keys: Keys, clock: Clock, random: Random, terms: Terms
    ) -> None:
        self._store = store
        self._audit = audit
        self._keys = keys
        self._clock = clock
        self._random = random
        self._terms = terms

    async def begin(self, data: bytes) -> bytes:
        """Answer an EnrolmentRequest with a challenge.

        :raises QuoteError: the keys are not what an EK and an AK must be.
        :raises ForbiddenError: nobody approved this TPM under this name.
        :raises BusyError: too many activations of this TPM are under way.
        """
        async with self._audit.decision("enrolment.begin") as decision:
            request = enrolments.verify_request(data)
            decision.about(subject=request.name)
            async with self._store.read() as tx:
                _verify_approval(await tx.approvals.get(request.ek_digest), request.name)
            async with self._store.write() as tx:
                approval = _verify_approval(await tx.approvals.lock(request.ek_digest), request.name)
                host_id = approval.host_id or self._random.take(limits.ID_BYTES)
                decision.about(host_id=host_id)
                activation = await self._add(tx, request, host_id)
                await self._audit.allow(tx, decision)
        return activation.challenge

    async def _add(
        self, tx: Transaction, request: enrolments.VerifiedRequest, host_id: bytes
    ) -> enrolments.Activation:
        now = self._clock.now()
        under_way = await tx.enrolments.find(ek_digest=request.ek_digest)
        if sum(other.expires_at > now for other in under_way) >= self._terms.max_enrolments_per_key:
            raise BusyError("too many activations of one TPM are under way")
        for other in under_way:
            if other.expires_at <= now:
                await tx.enrolments.remove(other.id)
        material = enrolments.ActivationMaterial(
            self._random.take(limits.ID_BYTES), host_id, self._random.take(_SECRET_BYTES)
        )
        activation = enrolments.begin(request, material, self._keys.root_public)
        await tx.enrolments.add(
            Enrolment(
                material.enrolment_id,
                request.ek_digest,
                request.data,
                activation.proof_digest,
                activation.result,
                host_id,
                now,
                now + self._terms.enrolment_seconds,
            )
        )
        return activation

    async def activate(self, enrolment_id: bytes, data: bytes) -> bytes:
        """Take the proof, once; the host is enrolled, with the keys of its request, from now on.

        A host that enrols again keeps its id; its sessions end, its leases run on until they end.

        :raises NotFoundError: no such activation, over, or used already.
        :raises SignatureError: the proof is not of this challenge.
        """
        async with self._audit.decision("enrolment.activate") as decision:
            message = EnrolmentProof.parse(data)
            async with self._store.read() as tx:
                enrolment = self._current(await tx.enrolments.get(enrolment_id))
            decision.about(host_id=enrolment.host_id)
            asked = enrolments.verify_proof(enrolment_id, enrolment.request, enrolment.proof, message)
            decision.about(subject=asked.name)
            async with self._store.write() as tx:
                self._current(await tx.enrolments.lock(enrolment_id))
                approval = _verify_approval(await tx.approvals.lock(enrolment.ek_digest), asked.name)
                for other in await tx.enrolments.find(ek_digest=enrolment.ek_digest):
                    await tx.enrolments.remove(other.id)
                await self._enrol(tx, approval, enrolment, asked)
                await self._audit.allow(tx, decision)
        return enrolment.result

    def _current(self, enrolment: Enrolment | None) -> Enrolment:
        if enrolment is None or enrolment.expires_at <= self._clock.now():
            raise NotFoundError("no such activation is under way")
        return enrolment

    async def _enrol(
        self, tx: Transaction, approval: Approval, enrolment: Enrolment, asked: EnrolmentRequest
    ) -> None:
        now = self._clock.now()
        host = Host(
            enrolment.host_id,
            approval.name,
            approval.ek_digest,
            asked.ak_public,
            asked.host_key,
            approval.owner_id,
            approval.operator,
            enrolled_at=now,
            created_at=now,
        )
        known = await tx.hosts.lock(enrolment.host_id)
        if known is None:
            await tx.hosts.add(host)
            await tx.approvals.put(replace(approval, host_id=host.id))
            return
        await tx.hosts.put(replace(host, created_at=known.created_at, last_event=known.last_event))
        for state in (sessions.OFFERED, sessions.ATTESTED):
            for session in await tx.sessions.find(host_id=host.id, state=state):
                await tx.sessions.put(replace(session, state=sessions.move(session.state, sessions.ENDED)))


def _verify_approval(approval: Approval | None, name: str) -> Approval:
    if approval is None or approval.revoked_at is not None or approval.name != name:
        raise ForbiddenError("nobody approved this TPM under this name")
    return approval
