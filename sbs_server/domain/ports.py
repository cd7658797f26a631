"""What the services need from outside: a store with transactions, objects, keys, time and chance."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cafe_lib.wire.keys import KemKeyPair
from sbs_server.domain import values

T = TypeVar("T")

Key = bytes | str | int
Condition = bytes | str | int | None


class Repository(Protocol[T]):
    """One kind of value. `equal` names fields and what they must be; None means "has no value"."""

    async def get(self, *key: Key) -> T | None:
        """Return the value, or None."""

    async def lock(self, *key: Key) -> T | None:
        """Return the value as `get`; nobody else changes it before this transaction ends."""

    async def find(self, *, limit: int | None = None, **equal: Condition) -> list[T]:
        """Return the values that match, oldest first."""

    async def page(self, after: str | None, limit: int, **equal: Condition) -> tuple[list[T], str | None]:
        """Return up to `limit` values, oldest first, and where the next page begins.

        Raises MalformedError when `after` is not what an earlier page gave.
        """

    async def count(self, **equal: Condition) -> int:
        """Return how many match."""

    async def add(self, value: T) -> None:
        """Store a new value; raises ConflictError when its key, or what must be unique, is taken."""

    async def put(self, value: T) -> None:
        """Replace a stored value; raises ConflictError."""

    async def remove(self, *key: Key) -> None:
        """Forget a value, if there is one."""


class Leases(Repository[values.Lease], Protocol):
    """Leases, whose seats the store itself keeps from being taken twice."""

    async def expire(self, now: int) -> None:
        """End every lease whose time and margin are over."""

    async def taken_seats(self, licence_id: bytes, now: int) -> list[int]:
        """Return the seats of a licence that are taken, ascending."""

    async def running(self, host_id: bytes, now: int) -> int:
        """Return how many seats the enclaves of a host take."""

    async def over_since(self, host_id: bytes, since: int, limit: int) -> list[values.Lease]:
        """Return the leases of a host that are over, and were to free their seat at `since` or later."""


class Events(Repository[values.Event], Protocol):
    """Revocations, numbered for each host."""

    async def after(self, host_id: bytes, number: int, limit: int) -> list[values.Event]:
        """Return the events of a host above `number`, ascending."""


class Audit(Repository[values.AuditRecord], Protocol):
    """Decisions; only ever added."""


class Policies(Repository[values.PolicyVersion], Protocol):
    """Every policy that was in force."""

    async def latest(self) -> values.PolicyVersion | None:
        """Return the one in force."""


class Transaction(Protocol):
    """All or nothing; what it has read under `lock` holds until it ends."""

    identities: Repository[values.Identity]
    releases: Repository[values.Release]
    vms: Repository[values.Vm]
    licences: Repository[values.Licence]
    approvals: Repository[values.Approval]
    enrolments: Repository[values.Enrolment]
    hosts: Repository[values.Host]
    sessions: Repository[values.Session]
    record_numbers: Repository[values.RecordNumber]
    leases: Leases
    events: Events
    policies: Policies
    audit: Audit

    async def purge(self, now: int, keep_seconds: int) -> None:
        """End the sessions whose time is over at `now`; delete those, and enrolments, over for that long.

        Events go once no lease that they end can run any more.
        """


class Store(Protocol):
    """The database. Both raise TransportError when it cannot be reached."""

    def read(self) -> AbstractAsyncContextManager[Transaction]:
        """Begin a transaction that only reads."""

    def write(self) -> AbstractAsyncContextManager[Transaction]:
        """Begin a transaction that writes: committed at the end of the block, undone by an exception."""


class BlobStore(Protocol):
    """Objects by name. All raise TransportError when the store fails."""

    async def put(self, name: str, data: bytes) -> None:
        """Write a whole object at once, over one that exists."""

    async def put_new(self, name: str, data: bytes) -> None:
        """Write an object unless it exists already; its name says what is in it."""

    async def get(self, name: str) -> bytes:
        """Return an object; raises NotFoundError."""

    def get_many(self, names: tuple[str, ...]) -> list[memoryview]:
        """Return objects, in order; blocks, so call it in a thread. Raises NotFoundError."""


class Keys(Protocol):
    """The keys of the SBS; none of them is ever in the database."""

    @property
    def root_public(self) -> bytes:
        """Return the root key (Ed25519) that hosts pin."""

    @property
    def signing_key(self) -> Ed25519PrivateKey:
        """Return the key that signs offers and events."""

    @property
    def certificate(self) -> bytes:
        """Return the root's certificate for the signing key."""

    @property
    def release_key(self) -> KemKeyPair:
        """Return the key that releases are sealed to."""

    def seal(self, context: bytes, secret: bytes) -> bytes:
        """Encrypt a secret for the database."""

    def open(self, context: bytes, sealed: bytes) -> bytes:
        """Return what was sealed with the same context; raises SignatureError."""


class Clock(Protocol):
    """Time."""

    def now(self) -> int:
        """Return UNIX seconds."""


class Random(Protocol):
    """Chance."""

    def take(self, count: int) -> bytes:
        """Return that many unpredictable bytes."""


class Steps(Protocol):
    """Tells whoever watches which step of the paper has just been done."""

    def step(self, number: int, milliseconds: float) -> None:
        """Report a deployment step."""


class Limiter(Protocol):
    """Slows callers down."""

    async def take(self, kind: str, caller: str) -> None:
        """Count one request; raises BusyError when this caller has had its share."""


class Bell(Protocol):
    """Wakes those who wait for events of a host."""

    def ring(self, host_id: bytes) -> None:
        """Say that a host has new events."""

    def listen(self, host_id: bytes) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """Yield at each ring, and at times without one."""
