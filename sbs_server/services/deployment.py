"""The release decision and the record stream (deployment steps 9 to 11)."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

from cafe_lib.errors import (
    ConflictError,
    DigestError,
    ForbiddenError,
    LicenceError,
    LimitError,
    NotFoundError,
    PolicyError,
    SessionError,
)
from cafe_lib.evidence.policy import Policy
from cafe_lib.image.confidential import confidential_digest
from cafe_lib.image.manifest import Manifest, read_manifest_unverified, secret_binary_id
from cafe_lib.wire import limits
from cafe_lib.wire.keys import StreamKeys, open_confidential
from cafe_lib.wire.messages import DeployRequest, Grant
from cafe_lib.wire.records import RecordWriter, decrypt_record
from sbs_server.attestation import sessions
from sbs_server.domain.ports import BlobStore, Clock, Keys, Limiter, Random, Steps, Store, Transaction
from sbs_server.domain.values import DEBUG, Host, Lease, Licence, RecordNumber, Release, Session, Terms, Vm
from sbs_server.services.audit import AuditTrail, Decision
from sbs_server.services.live import LiveSession, load_session, verify_enrolled, verify_live
from sbs_server.services.policies import policy_in_force
from sbs_server.services.releases import chunk_object, manifest_object, sealed_object

_DECIDE, _STREAM = 10, 11
_DEPLOYMENTS: Final = "deployment"
_BATCH: Final = 16
"""Chunks read, MACed and joined in one go of a thread, and sent as one piece (1 MiB)."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a host asks for, decrypted; `number` and `digest` are the record's."""

    live: LiveSession
    number: int
    digest: bytes
    request: DeployRequest


@dataclass(frozen=True, slots=True)
class Package:
    """A stored release, its confidential part opened and checked; in memory only."""

    manifest: Manifest
    cose: bytes
    confidential: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Granted:
    """What was decided, for one lease."""

    host: Host
    vm: Vm
    release: Release
    lease: Lease
    seconds: int


@dataclass(frozen=True, slots=True)
class DeploymentTools:
    """What grants are made with."""

    blobs: BlobStore
    keys: Keys
    random: Random
    clock: Clock
    limiter: Limiter
    steps: Steps
    terms: Terms


class Deployments:
    """Decides on requests and streams releases."""

    def __init__(self, store: Store, audit: AuditTrail, tools: DeploymentTools) -> None:
        self._store = store
        self._audit = audit
        self._tools = tools

    async def deploy(self, session_id: bytes, record: bytes) -> AsyncIterator[bytes]:
        """Return the record stream that answers a DeployRequest's record.

        :raises SessionError, SignatureError, ProtocolError: not a request of an attested session.
        :raises BusyError: the host asks too often.
        :raises PolicyError, ForbiddenError, NotFoundError, LicenceError: refused; nothing was given out.
        """
        start = time.perf_counter()
        async with self._audit.decision("deployment.grant") as decision:
            order = await self._read(session_id, record, decision)
            package = await self._open(order.request.secret_binary_id)
            async with self._store.write() as tx:
                granted = await self._decide(tx, order, decision)
                await self._audit.allow(tx, decision)
        writer, head = self._begin(order, granted, package)
        self._tools.steps.step(_DECIDE, (time.perf_counter() - start) * 1000)
        return self._stream(writer, head, package.manifest)

    async def _read(self, session_id: bytes, record: bytes, decision: Decision) -> Order:
        async with self._store.read() as tx:
            live = await load_session(tx, self._tools.keys, session_id, self._tools.clock.now())
            host = await tx.hosts.get(live.row.host_id)
        number, body = decrypt_record(live.keys, record)
        await self._tools.limiter.take(_DEPLOYMENTS, live.row.host_id.hex())
        request = DeployRequest.parse(body)
        decision.actor = f"host {host.name if host else ''}"
        decision.about(host_id=live.row.host_id, vm_id=request.vm_id, release_id=request.secret_binary_id)
        if not hmac.compare_digest(request.session_id, session_id):
            raise SessionError("a request of another session")
        return Order(live, number, hashlib.sha256(record).digest(), request)

    # -------------------------------------------------------------- the decision

    async def _decide(self, tx: Transaction, order: Order, decision: Decision) -> Granted:
        """Take the decision: every check, in order, in one transaction. The seat is taken in it, too."""
        request, now = order.request, self._tools.clock.now()
        # 1. the session is attested and not over
        session = verify_live(await tx.sessions.lock(order.live.row.id), sessions.ATTESTED, now)
        # 2. under the policy in force, by a quote that is young enough
        policy = self._verify_policy(await policy_in_force(tx), session, now)
        # 3. the record's number was not used by another record of the session
        await self._verify_number(tx, order, now)
        # 4. the host is enrolled and not revoked
        host = verify_enrolled(await tx.hosts.lock(session.host_id))
        # 5. the provider registered the VM to this host, for a tenant
        vm = _verify_vm(await tx.vms.lock(request.vm_id), host)
        decision.about(tenant=vm.tenant)
        # 6. the release exists, is not revoked, and is of a build mode that the policy allows
        release = _verify_release(await tx.releases.lock(request.secret_binary_id), policy)
        # 7. a request that was granted before keeps its lease and seat
        await tx.leases.expire(now)
        lease = _verify_retry(
            await tx.leases.find(host_id=host.id, request_id=request.request_id), request, now
        )
        # 8. otherwise a licence of the app, bound to this VM or tenant and not over, has a free seat
        if lease is None:
            lease = await self._take_seat(tx, order, vm, release, now)
        decision.about(licence_id=lease.licence_id, lease_id=lease.id)
        return Granted(host, vm, release, lease, lease.expires_at - now)

    def _verify_policy(self, policy: Policy, session: Session, now: int) -> Policy:
        if session.policy_version != policy.version:
            raise SessionError("the session was attested under another policy")
        oldest = now - min(policy.max_quote_age_seconds, self._tools.terms.quote_max_age_seconds)
        if session.attested_at is None or session.attested_at < oldest:
            raise SessionError("the session's quote is too old")
        return policy

    async def _verify_number(self, tx: Transaction, order: Order, now: int) -> None:
        session_id, number = order.live.row.id, order.number.to_bytes(8, "big")
        known = await tx.record_numbers.get(session_id, number)
        if known is not None:
            if not hmac.compare_digest(known.digest, order.digest):
                raise SessionError("a record number was used twice")
            return
        if await tx.record_numbers.count(session_id=session_id) >= self._tools.terms.max_records_per_session:
            raise SessionError("the session has made as many requests as it may")
        await tx.record_numbers.add(RecordNumber(session_id, number, order.digest, now))

    async def _take_seat(self, tx: Transaction, order: Order, vm: Vm, release: Release, now: int) -> Lease:
        terms = self._tools.terms
        if await tx.leases.running(vm.host_id, now) >= terms.max_leases_per_host:
            raise LimitError("the host runs as many enclaves as it may")
        for licence in await _licences(tx, release, vm, now):
            taken = set(await tx.leases.taken_seats(licence.id, now))
            free = next((seat for seat in range(1, licence.seats + 1) if seat not in taken), None)
            if free is None:
                continue
            expires_at = min(now + terms.lease_seconds, licence.expires_at)
            lease = Lease(
                self._tools.random.take(limits.ID_BYTES),
                licence.id,
                licence.seats,
                free,
                vm.host_id,
                vm.vm_id,
                vm.tenant,
                release.id,
                order.request.request_id,
                now,
                expires_at,
                expires_at + terms.lease_margin_seconds,
            )
            await tx.leases.add(lease)
            return lease
        raise LicenceError("no licence of this app with a free seat, for this tenant or VM")

    # -------------------------------------------------------------- the stream

    async def _open(self, release_id: bytes) -> Package:
        cose = await self._tools.blobs.get(manifest_object(release_id))
        sealed = await self._tools.blobs.get(sealed_object(release_id))
        return await asyncio.to_thread(self._open_package, release_id, cose, sealed)

    def _open_package(self, release_id: bytes, cose: bytes, sealed: bytes) -> Package:
        """Nobody who can write to the store can swap manifest or keys: both are what the id commits to."""
        if not hmac.compare_digest(secret_binary_id(cose), release_id):
            raise DigestError("the stored manifest is not this release's")
        manifest = read_manifest_unverified(cose)
        confidential = open_confidential(self._tools.keys.release_key, release_id, sealed)
        if not hmac.compare_digest(confidential_digest(confidential), manifest.confidential_digest):
            raise DigestError("the stored confidential part is not this release's")
        return Package(manifest, cose, confidential)

    def _begin(self, order: Order, granted: Granted, package: Package) -> tuple[RecordWriter, bytes]:
        """Make the stream's keys, fresh each time, and its first record."""
        live, release = order.live, granted.release
        nonce = self._tools.random.take(limits.NONCE_BYTES)
        writer = RecordWriter(StreamKeys.derive(live.secret, live.row.transcript, order.digest, nonce))
        grant = Grant(
            package.cose,
            package.confidential,
            live.row.id,
            order.request.request_id,
            granted.host.id,
            granted.vm.vm_id,
            granted.vm.tenant,
            release.id,
            release.build_mode,
            granted.lease.id,
            granted.seconds,
            release.title,
            release.publisher_key,
        )
        return writer, writer.begin() + writer.grant(grant.encode())

    async def _stream(self, writer: RecordWriter, head: bytes, manifest: Manifest) -> AsyncIterator[bytes]:
        start = time.perf_counter()
        names = tuple(chunk_object(name) for name in manifest.chunk_names)
        batches = [names[index : index + _BATCH] for index in range(0, len(names), _BATCH)]
        yield head
        reading = asyncio.create_task(asyncio.to_thread(self._batch, writer, batches[0]))
        try:
            for following in [*batches[1:], None]:
                piece = await reading
                if following is not None:
                    reading = asyncio.create_task(asyncio.to_thread(self._batch, writer, following))
                yield piece
        finally:
            reading.cancel()
        yield writer.end()
        self._tools.steps.step(_STREAM, (time.perf_counter() - start) * 1000)

    def _batch(self, writer: RecordWriter, names: tuple[str, ...]) -> bytes:
        """Read and MAC some chunks; the join is the only copy."""
        parts: list[bytes | memoryview] = []
        for ciphertext in self._tools.blobs.get_many(names):
            header, tag = writer.chunk(ciphertext)
            parts += (header, ciphertext, tag)
        return b"".join(parts)


def _verify_vm(vm: Vm | None, host: Host) -> Vm:
    if vm is None or vm.removed_at is not None or vm.host_id != host.id:
        raise ForbiddenError("the VM is not registered to this host")
    return vm


def _verify_release(release: Release | None, policy: Policy) -> Release:
    if release is None or release.revoked_at is not None:
        raise NotFoundError("no such release, or it is revoked")
    if release.build_mode == DEBUG and not policy.allow_debug:
        raise PolicyError("the policy allows no debug release")
    return release


def _verify_retry(known: list[Lease], request: DeployRequest, now: int) -> Lease | None:
    for lease in known:
        if (lease.vm_id, lease.release_id) != (request.vm_id, request.secret_binary_id):
            raise ConflictError("a request id was used for another VM or release")
        if lease.ended_at is not None or lease.end_reason is not None or lease.expires_at <= now:
            raise LicenceError("the lease of this request is over")
        return lease
    return None


async def _licences(tx: Transaction, release: Release, vm: Vm, now: int) -> list[Licence]:
    """Return the licences that cover it, locked: those of the VM first, then those that end soonest."""
    of_vm = await tx.licences.find(app=release.app, vm_id=vm.vm_id, revoked_at=None)
    of_tenant = await tx.licences.find(app=release.app, tenant=vm.tenant, revoked_at=None)
    found = []
    for licence in (*sorted(of_vm, key=_end), *sorted(of_tenant, key=_end)):
        locked = await tx.licences.lock(licence.id)
        if locked is not None and locked.revoked_at is None and locked.expires_at > now:
            found.append(locked)
    return found


def _end(licence: Licence) -> int:
    return licence.expires_at
