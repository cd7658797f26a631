"""Releases: a package is checked as it arrives, and is visible only once all of it is right."""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from cafe_lib.errors import (
    BusyError,
    ConflictError,
    DigestError,
    NotFoundError,
    UnauthenticatedError,
    VersionError,
)
from cafe_lib.image.confidential import confidential_digest, parse_confidential
from cafe_lib.image.manifest import VerifiedManifest, verify_manifest
from cafe_lib.image.package import SEALED, PackageHead, PackageStream
from cafe_lib.wire.keys import open_confidential
from sbs_server.domain.ports import BlobStore, Clock, Keys, Store, Transaction
from sbs_server.domain.values import PUBLISHER, Identity, Release, Terms
from sbs_server.services.audit import AuditTrail, Decision
from sbs_server.services.revocation import RELEASE, Cause, Revoker

_FLIGHT: Final = 8
"""Chunks on their way to the store at once."""


def chunk_object(name: bytes) -> str:
    """Return where a chunk lies; a chunk's name is the SHA-256 of its ciphertext."""
    text = name.hex()
    return f"chunks/{text[:2]}/{text}"


def manifest_object(release_id: bytes) -> str:
    """Return where the signed manifest of a release lies."""
    return f"releases/{release_id.hex()}/manifest"


def sealed_object(release_id: bytes) -> str:
    """Return where the confidential part of a release lies, sealed as it came."""
    return f"releases/{release_id.hex()}/sealed"


@dataclass(frozen=True, slots=True)
class ReleaseTools:
    """What releases are checked and kept with."""

    blobs: BlobStore
    keys: Keys
    clock: Clock
    terms: Terms


class Releases:
    """Takes in, shows and revokes. Publishers see their own; who sells and who runs the SBS see all."""

    def __init__(self, store: Store, audit: AuditTrail, revoker: Revoker, tools: ReleaseTools) -> None:
        self._store = store
        self._audit = audit
        self._revoker = revoker
        self._tools = tools
        self._uploads: Counter[bytes] = Counter()

    async def upload(self, caller: Identity, pieces: AsyncIterator[bytes]) -> Release:
        """Take in a package of kind 2 (sealed to this SBS).

        :raises ProtocolError: not such a package, cut short, or too long.
        :raises VerificationError: not signed by the caller's key, or the parts do not fit the manifest.
        :raises ConflictError: this release, or this version of the app, exists (also if it is revoked).
        :raises UnauthenticatedError: the caller's identity was ended meanwhile.
        """
        with self._slot(caller):
            async with self._audit.decision("release.upload", caller.name) as decision:
                upload = _Upload(self._tools, caller)
                async for piece in pieces:
                    chunks = await asyncio.to_thread(upload.feed, piece)
                    if upload.fresh:
                        await self._admit(upload.verified(), caller, decision)
                    await upload.store(chunks)
                release = await upload.finish()
                async with self._store.write() as tx:
                    await _verify_owner(tx, caller)
                    await tx.releases.add(release)
                    await self._audit.allow(tx, decision)
        return release

    @contextmanager
    def _slot(self, caller: Identity) -> Iterator[None]:
        if self._uploads[caller.id] >= self._tools.terms.max_uploads_per_publisher:
            raise BusyError("this publisher has too many uploads under way")
        self._uploads[caller.id] += 1
        try:
            yield
        finally:
            self._uploads[caller.id] -= 1

    async def _admit(self, verified: VerifiedManifest, caller: Identity, decision: Decision) -> None:
        """Refuse early what would be refused at the end."""
        manifest = verified.manifest
        decision.about(release_id=verified.secret_binary_id)
        decision.about(subject=f"{caller.name}/{manifest.name}@{manifest.version}")
        async with self._store.read() as tx:
            same = await tx.releases.count(
                publisher=caller.name, name=manifest.name, version=manifest.version
            )
            if same or await tx.releases.get(verified.secret_binary_id) is not None:
                raise ConflictError("this release, or this version, exists already")

    async def page(self, caller: Identity, after: str | None, limit: int) -> tuple[list[Release], str | None]:
        """Return the releases the caller may see."""
        own: dict[str, bytes] = {"owner_id": caller.id} if caller.role == PUBLISHER else {}
        async with self._store.read() as tx:
            return await tx.releases.page(after, limit, **own)

    async def show(self, caller: Identity, release_id: bytes) -> Release:
        """Return one; raises NotFoundError, also for those of others."""
        async with self._store.read() as tx:
            return _seen(caller, await tx.releases.get(release_id))

    async def revoke(self, caller: Identity, release_id: bytes) -> Release:
        """End a release and its leases for good; again is no error. Raises NotFoundError."""
        async with self._audit.decision("release.revoke", caller.name) as decision:
            decision.about(release_id=release_id)
            async with self._store.write() as tx:
                release = _seen(caller, await tx.releases.lock(release_id))
                release = replace(release, revoked_at=release.revoked_at or self._tools.clock.now())
                hosts = await self._end(tx, release)
                await self._audit.allow(tx, decision)
        self._revoker.ring(hosts)
        return release

    async def _end(self, tx: Transaction, release: Release) -> set[bytes]:
        await tx.releases.put(release)
        leases = await tx.leases.find(release_id=release.id, ended_at=None)
        return await self._revoker.end(tx, leases, Cause(RELEASE, release.id))


async def _verify_owner(tx: Transaction, caller: Identity) -> None:
    """Refuse an upload that outlasted its owner's identity: an upload may take as long as it likes."""
    owner = await tx.identities.lock(caller.id)
    if owner is None or owner.revoked_at is not None:
        raise UnauthenticatedError("the identity was ended during the upload")


def _seen(caller: Identity, release: Release | None) -> Release:
    if release is None or (caller.role == PUBLISHER and release.owner_id != caller.id):
        raise NotFoundError("no such release of this caller")
    return release


class _Upload:
    """One package on its way in. Nothing is stored before its head has been verified."""

    def __init__(self, tools: ReleaseTools, caller: Identity) -> None:
        self._tools = tools
        self._caller = caller
        self._stream = PackageStream()
        self._verified: VerifiedManifest | None = None
        self._stored = 0
        self.fresh = False

    def feed(self, piece: bytes) -> list[bytes]:
        """Take the next piece; return the chunks it completes, each checked against its name.

        `fresh` is set when it has completed the head, which is verified then.
        """
        chunks = list(self._stream.feed(piece))
        head = self._stream.head
        self.fresh = head is not None and self._verified is None
        if head is not None and self._verified is None:
            self._verified = self._verify(head)
        return chunks

    def verified(self) -> VerifiedManifest:
        """Return the verified manifest; only after the head has come."""
        if self._verified is None:
            raise DigestError("nothing was verified")
        return self._verified

    def _verify(self, head: PackageHead) -> VerifiedManifest:
        # 1. it is sealed to an SBS, not wrapped for its publisher
        if head.kind != SEALED:
            raise VersionError("a package that is not sealed to an SBS")
        # 2. the caller signed the manifest
        verified = verify_manifest(head.cose, self._caller.public_key)
        # 3. the confidential part opens under our key, and is what the manifest commits to
        release_key = self._tools.keys.release_key
        confidential = open_confidential(release_key, verified.secret_binary_id, head.blob)
        digest = confidential_digest(confidential)
        if not hmac.compare_digest(digest, verified.manifest.confidential_digest):
            raise DigestError("the confidential part is not the one the manifest names")
        # 4. it has one key and one tag for each chunk
        if len(parse_confidential(confidential).keys) != len(verified.manifest.chunk_names):
            raise DigestError("as many keys as chunks are needed")
        return verified

    async def store(self, chunks: list[bytes]) -> None:
        """Store chunks under their names; equal ones are stored once."""
        names = self.verified().manifest.chunk_names if chunks else ()
        for start in range(0, len(chunks), _FLIGHT):
            some = chunks[start : start + _FLIGHT]
            first = self._stored
            await asyncio.gather(
                *(
                    self._tools.blobs.put_new(chunk_object(names[first + index]), chunk)
                    for index, chunk in enumerate(some)
                )
            )
            self._stored += len(some)

    async def finish(self) -> Release:
        """Store the head; return the release, which the caller makes visible."""
        head = self._stream.finish()
        verified = self.verified()
        manifest, release_id = verified.manifest, verified.secret_binary_id
        await self._tools.blobs.put(manifest_object(release_id), head.cose)
        await self._tools.blobs.put(sealed_object(release_id), head.blob)
        return Release(
            release_id,
            self._caller.id,
            self._caller.name,
            manifest.name,
            manifest.version,
            manifest.build_mode,
            manifest.interface_digest,
            manifest.image_bytes,
            len(manifest.chunk_names),
            self._caller.public_key,
            self._tools.clock.now(),
        )
