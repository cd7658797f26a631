"""Deployment: what the agent asks for (step 9), and the first record of the answer (steps 10 and 11)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from cafe_lib.wire import limits
from cafe_lib.wire.envelope import MacBody
from cafe_lib.wire.schema import Blob, Bytes32, Id, Items, Message, Name, Text, Uint


@dataclass(frozen=True, slots=True)
class DeployRequest(Message):
    """Host to SBS, an encrypted record under the client keys. `held`: releases whose chunks the agent has."""

    KIND: ClassVar[int] = 48

    request_id: Id
    session_id: Id
    vm_id: Name
    secret_binary_id: Bytes32
    held: Annotated[tuple[bytes, ...], Items(Blob(32, 32), limits.MAX_HELD_RELEASES)]


@dataclass(frozen=True, slots=True)
class Grant(Message):
    """SBS to host, the body of the GRANT record: the keys, and everything they are good for.

    `manifest` is a COSE_Sign1 that verifies under `publisher_key` (Ed25519, raw); `release` is
    publisher/name@version.
    """

    KIND: ClassVar[int] = 49
    LIMIT: ClassVar[int] = limits.MAX_GRANT_BYTES

    manifest: Annotated[bytes, Blob(1, limits.MAX_MANIFEST_BYTES)]
    confidential: Annotated[bytes, Blob(1, limits.MAX_CONFIDENTIAL_BYTES)] = field(repr=False)
    session_id: Id
    request_id: Id
    host_id: Id
    vm_id: Name
    tenant: Name
    secret_binary_id: Bytes32
    build_mode: Annotated[int, Uint(1, 2)]
    lease_id: Id
    lease_seconds: Annotated[int, Uint(1, limits.MAX_LEASE_SECONDS)]
    release: Annotated[str, Text(1, limits.MAX_RELEASE_BYTES)]
    publisher_key: Bytes32


@dataclass(frozen=True, slots=True)
class LeaseEnd(MacBody):
    """Host to SBS, under the client key: gives a seat back."""

    KIND: ClassVar[int] = 50
    LABEL: ClassVar[str] = "lease end"

    session_id: Id
    lease_id: Id
