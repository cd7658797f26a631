"""A launch on the agent: every field of the grant, every chunk in order, and no verdict before the end."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cafe_lib.errors import (
    CafeError,
    DigestError,
    MalformedError,
    PolicyError,
    ProtocolError,
    SessionError,
    SignatureError,
    VerificationError,
)
from cafe_lib.image.confidential import Confidential, confidential_digest, encrypt_chunk
from cafe_lib.image.manifest import Manifest, sign_manifest
from cafe_lib.wire import keys, limits, records
from cafe_lib.wire.messages import DeployRequest, Grant
from hypervisor_agent.trusted import (
    BUILD_DEBUG,
    LaunchAsk,
    TrustedLaunch,
    VerifiedChunk,
    verify_grant,
)

HOST, SESSION, REQUEST, LEASE = b"h" * 16, b"s" * 16, b"r" * 16, b"l" * 16
PUBLISHER = Ed25519PrivateKey.from_private_bytes(b"p" * 32)
STRANGER = Ed25519PrivateKey.from_private_bytes(b"q" * 32)
PLAIN = (b"A" * limits.CHUNK_BYTES, b"B" * limits.CHUNK_BYTES, b"C" * 4096)
CONTEXT = keys.StreamContext(b"s" * 32, b"t" * 32, b"d" * 32)


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


class Release:
    """A small release of three chunks, with any part changed."""

    def __init__(self, key: Ed25519PrivateKey = PUBLISHER, **changes: object) -> None:
        sealed = [encrypt_chunk(b"publisher secret of 32 bytes....", plain) for plain in PLAIN]
        self.chunks = tuple(one[3] for one in sealed)
        parts = Confidential(b"s" * 32, tuple(one[1] for one in sealed), tuple(one[2] for one in sealed))
        self.confidential = parts.encode()
        manifest = Manifest(
            name="totp",
            version="1.0",
            publisher=hashlib.sha256(public(key)).digest(),
            build_mode=1,
            abi_version=2,
            isa=1,
            interface_digest=b"i" * 32,
            stack_bytes=65536,
            heap_bytes=65536,
            slot_count=1,
            slot_bytes=4096,
            vcpu_count=1,
            bulk_bytes=0,
            deadline_ms=1000,
            image_bytes=sum(map(len, PLAIN)),
            chunk_names=tuple(one[0] for one in sealed),
            confidential_digest=confidential_digest(self.confidential),
        )
        manifest = dataclasses.replace(manifest, **changes)  # type: ignore[arg-type]
        self.cose = sign_manifest(key, manifest)
        self.id = hashlib.sha256(manifest.encode()).digest()

    def grant(self, **changes: object) -> Grant:
        grant = Grant(
            self.cose, self.confidential, SESSION, REQUEST, HOST, "vm-1", "tenant", self.id, 1, LEASE, 600,
            "acme/totp@1.0", public(PUBLISHER),
        )  # fmt: skip
        return dataclasses.replace(grant, **changes)  # type: ignore[arg-type]


RELEASE = Release()
ASK = LaunchAsk(REQUEST, "vm-1", RELEASE.id)


def stream(grant: Grant | None = None, chunks: tuple[bytes, ...] = RELEASE.chunks) -> list[bytes]:
    writer = records.RecordWriter(CONTEXT.keys(b"n" * 32))
    parts = [writer.begin(), writer.grant((grant or RELEASE.grant()).encode())]
    for chunk in chunks:
        header, tag = writer.chunk(chunk)
        parts.append(header + chunk + tag)
    return [*parts, writer.end()]


def launch(ask: LaunchAsk = ASK) -> TrustedLaunch:
    return TrustedLaunch(HOST, SESSION, ask, b"record", CONTEXT)


def test_a_whole_release() -> None:
    one, found = launch(), []
    for part in stream():
        steps = one.feed(part)
        found += [bytes(step.ciphertext) if isinstance(step, VerifiedChunk) else step for step in steps]
    grant = one.finish()
    assert found == [grant, *RELEASE.chunks]
    assert grant.manifest.secret_binary_id == RELEASE.id
    assert (grant.lease_id, grant.lease_seconds, grant.tenant) == (LEASE, 600, "tenant")


@pytest.mark.case("C06")
def test_no_verdict_before_the_end() -> None:
    parts = stream()
    for count in range(len(parts)):
        one = launch()
        for part in parts[:count]:
            list(one.feed(part))
        with pytest.raises(MalformedError):
            one.finish()
    one = launch()
    next(iter(one.feed(b"".join(parts))))  # the rest was never looked at
    with pytest.raises(SessionError):
        one.finish()


GRANTS = {
    "another session": ({"session_id": b"S" * 16}, SessionError),
    "another request": ({"request_id": b"R" * 16}, SessionError),
    "another host": ({"host_id": b"H" * 16}, SessionError),
    "another VM": ({"vm_id": "vm-2"}, SessionError),
    "VM with a blank": ({"vm_id": "vm-1 "}, SessionError),
    "another release asked": ({"secret_binary_id": b"I" * 32}, SessionError),
    "another release's manifest": ({"manifest": Release(version="0.9").cose}, DigestError),
    "another release whole": (
        {"manifest": Release(version="0.9").cose, "secret_binary_id": Release(version="0.9").id},
        SessionError,
    ),
    "another publisher's manifest": ({"manifest": Release(STRANGER).cose}, SignatureError),
    "another publisher's key": ({"publisher_key": public(STRANGER)}, SignatureError),
    "another publisher whole": (
        {"manifest": Release(STRANGER).cose, "publisher_key": public(STRANGER)},
        DigestError,
    ),
    "manifest no COSE": ({"manifest": b"\0"}, ProtocolError),
    "signature changed": ({"manifest": RELEASE.cose[:-1] + bytes([RELEASE.cose[-1] ^ 1])}, SignatureError),
    "build mode lies": ({"build_mode": 2}, PolicyError),
    "name lies": ({"release": "acme/totp@1.1"}, SessionError),
    "name without publisher": ({"release": "totp@1.0"}, SessionError),
    "another confidential part": (
        {"confidential": Confidential(b"S" * 32, (b"k" * 32,) * 3, (b"t" * 16,) * 3).encode()},
        DigestError,
    ),
    "confidential part changed": ({"confidential": RELEASE.confidential[:-1] + b"\0"}, DigestError),
}


@pytest.mark.case("C04")
@pytest.mark.parametrize(("changes", "error"), GRANTS.values(), ids=GRANTS.keys())
def test_grant_is_refused(changes: dict[str, object], error: type[CafeError]) -> None:
    one = launch()
    with pytest.raises(error):
        list(one.feed(b"".join(stream(RELEASE.grant(**changes)))))
    with pytest.raises(SessionError):
        one.finish()


@pytest.mark.case("C05")
def test_rollback_to_an_older_release() -> None:
    """The guest asked for 1.0; an SBS database that was rolled back cannot give it 0.9."""
    old = Release(version="0.9")
    given = old.grant(release="acme/totp@0.9")
    with pytest.raises(SessionError):
        list(launch().feed(b"".join(stream(given))))


def test_debug_builds_only_where_allowed() -> None:
    debug = Release(build_mode=BUILD_DEBUG)
    grant = debug.grant(build_mode=BUILD_DEBUG).encode()
    ask = dataclasses.replace(ASK, secret_binary_id=debug.id)
    with pytest.raises(PolicyError):
        verify_grant(grant, HOST, SESSION, ask)
    allowed = dataclasses.replace(ask, build_modes=frozenset({1, BUILD_DEBUG}))
    assert verify_grant(grant, HOST, SESSION, allowed).build_mode == BUILD_DEBUG


@pytest.mark.parametrize("modes", [{1}, {1, BUILD_DEBUG}], ids=["production host", "debug host"])
@pytest.mark.parametrize(("built", "said"), [(BUILD_DEBUG, 1), (1, BUILD_DEBUG)])
def test_no_build_is_granted_as_another_kind(built: int, said: int, modes: set[int]) -> None:
    """What the signed manifest says counts, whatever the SBS, or whoever writes its database, says."""
    release = Release(build_mode=built)
    grant = release.grant(build_mode=said).encode()
    ask = dataclasses.replace(ASK, secret_binary_id=release.id, build_modes=frozenset(modes))
    with pytest.raises(PolicyError):
        verify_grant(grant, HOST, SESSION, ask)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_as_many_keys_as_chunks(count: int) -> None:
    parts = Confidential(b"s" * 32, (b"k" * 32,) * count, (b"t" * 16,) * count).encode()
    other = Release(confidential_digest=confidential_digest(parts))
    ask = dataclasses.replace(ASK, secret_binary_id=other.id)
    with pytest.raises(ProtocolError):
        verify_grant(other.grant(confidential=parts).encode(), HOST, SESSION, ask)


A, B, C = RELEASE.chunks


@pytest.mark.case("C06")
@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param((), id="none"),
        pytest.param((A, B), id="last missing"),
        pytest.param((A, C), id="one missing"),
        pytest.param((A, B, C, C), id="one too many"),
        pytest.param((A, B, B), id="last too long"),
        pytest.param((C, A, B), id="short one first"),
        pytest.param((A, B, C[:-1]), id="last too short"),
        pytest.param((A, B[:-1], C), id="middle too short"),
    ],
)
def test_chunks_that_are_not_the_manifests(chunks: tuple[bytes, ...]) -> None:
    """A stream with right MACs and END all the same: the SBS itself may be out of step with its store."""
    one = launch()
    with pytest.raises(MalformedError):
        list(one.feed(b"".join(stream(chunks=chunks))))
    with pytest.raises(SessionError):
        one.finish()


@pytest.mark.case("C04")
def test_stream_of_another_launch() -> None:
    """A whole recorded stream, replayed to the next request: its keys are those of the old record."""
    session_keys = keys.SessionKeys.derive(b"s" * 32, b"t" * 32)
    body = DeployRequest(REQUEST, SESSION, "vm-1", RELEASE.id, ()).encode()
    first, second = (records.encrypt_record(session_keys, number, body) for number in (0, 1))
    assert first != second
    context = keys.StreamContext(b"s" * 32, b"t" * 32, hashlib.sha256(second).digest())
    again = TrustedLaunch(HOST, SESSION, ASK, second, context)
    with pytest.raises(SignatureError):
        list(again.feed(b"".join(stream())))


@pytest.mark.case("C01")
def test_sampled_bit_flips_never_reach_a_verdict() -> None:
    data = b"".join(stream())
    for position in [*range(0, 3000, 11), *range(3000, len(data), 1499), *range(len(data) - 100, len(data))]:
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        one = launch()
        with pytest.raises((ProtocolError, VerificationError)):
            list(one.feed(changed))
        with pytest.raises(CafeError):
            one.finish()


def test_nothing_after_a_failure() -> None:
    one = launch()
    with pytest.raises(CafeError):
        list(one.feed(b"x" * 40))
    with pytest.raises(SessionError):
        list(one.feed(b"".join(stream())))
    with pytest.raises(SessionError):
        one.finish()
