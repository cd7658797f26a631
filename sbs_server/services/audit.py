"""One audit record for every decision: with the transaction that carries it out, or alone for a refusal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from cafe_lib.errors import CafeError, TransportError
from sbs_server.domain.ports import Clock, Limiter, Store, Transaction
from sbs_server.domain.values import AuditRecord, Subject

NOBODY: Final = "nobody"
_REFUSALS: Final = "refusal"
_log = structlog.get_logger()


@dataclass(slots=True)
class Decision:
    """A decision in the making: who asked, what for, and what is known about it so far."""

    action: str
    actor: str
    subject: Subject = field(default_factory=Subject)

    def about(self, **fields: bytes | str | None) -> None:
        """Say what the decision is about; see Subject."""
        self.subject = replace(self.subject, **fields)  # type: ignore[arg-type]  # Subject checks the names

    def record(self, now: int, code: str | None) -> AuditRecord:
        """Return the record; `code` is the refusal's, None when it is allowed."""
        about = self.subject
        return AuditRecord(
            0,
            now,
            self.actor,
            self.action,
            code,
            about.subject,
            about.host_id,
            about.vm_id,
            about.tenant,
            about.release_id,
            about.licence_id,
            about.lease_id,
        )


class AuditTrail:
    """Writes and lists the records."""

    def __init__(self, store: Store, clock: Clock, limiter: Limiter) -> None:
        self._store = store
        self._clock = clock
        self._limiter = limiter

    @asynccontextmanager
    async def decision(self, action: str, actor: str = NOBODY) -> AsyncIterator[Decision]:
        """Take a decision in this block: call `allow` in its transaction; an error in it is a refusal.

        A transport error is neither: nothing was decided.
        """
        decision = Decision(action, actor)
        try:
            yield decision
        except TransportError:
            raise
        except CafeError as error:
            _log.info("refused", action=action, actor=decision.actor, code=error.code, detail=error.detail)
            await self._refuse(decision, error)
            raise

    async def allow(self, tx: Transaction, decision: Decision) -> None:
        """Record that it is allowed, in the transaction that does what was decided."""
        await tx.audit.add(decision.record(self._clock.now(), None))

    async def page(
        self, after: str | None, limit: int, **equal: bytes | str | None
    ) -> tuple[list[AuditRecord], str | None]:
        """Return records, oldest first."""
        async with self._store.read() as tx:
            return await tx.audit.page(after, limit, **equal)

    async def _refuse(self, decision: Decision, error: CafeError) -> None:
        """Record a refusal; whoever shows no identity cannot fill the store with them."""
        try:
            if decision.actor == NOBODY:
                await self._limiter.take(_REFUSALS, NOBODY)
            async with self._store.write() as tx:
                await tx.audit.add(decision.record(self._clock.now(), error.code))
        except CafeError as failure:
            _log.warning("refusal not recorded", action=decision.action, detail=failure.detail)
