"""The policy in force: which measurements of a host are good."""

from __future__ import annotations

from cafe_lib.errors import ConflictError, NotFoundError, PolicyError
from cafe_lib.evidence.policy import Policy, parse_policy
from sbs_server.domain.ports import Clock, Store, Transaction
from sbs_server.domain.values import PolicyVersion
from sbs_server.services.audit import AuditTrail


async def policy_in_force(tx: Transaction) -> Policy:
    """Return the policy; raises PolicyError when there is none: then no host is good."""
    found = await tx.policies.latest()
    if found is None:
        raise PolicyError("no policy has been put")
    return parse_policy(found.document)


class Policies:
    """Puts and shows policies."""

    def __init__(self, store: Store, audit: AuditTrail, clock: Clock) -> None:
        self._store = store
        self._audit = audit
        self._clock = clock

    async def show(self) -> PolicyVersion:
        """Return the policy in force; raises NotFoundError."""
        async with self._store.read() as tx:
            found = await tx.policies.latest()
        if found is None:
            raise NotFoundError("no policy has been put")
        return found

    async def put(self, actor: str, document: bytes) -> PolicyVersion:
        """Put a policy in force; sessions attested under an older one get no further grant.

        :raises PolicyError, ProtocolError: the document is not a policy.
        :raises ConflictError: its version is not above the present one.
        """
        async with self._audit.decision("policy.put", actor) as decision:
            policy = parse_policy(document)
            decision.about(subject=str(policy.version))
            version = PolicyVersion(policy.version, document, actor, self._clock.now())
            async with self._store.write() as tx:
                present = await tx.policies.latest()
                if present is not None and present.version >= policy.version:
                    raise ConflictError(f"the version must be above {present.version}")
                await tx.policies.add(version)
                await self._audit.allow(tx, decision)
        return version
