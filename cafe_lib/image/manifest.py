"""The manifest: what a publisher signs about one secret binary, and the signature itself (COSE_Sign1)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import astuple, dataclass, fields
from typing import Final

import cwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from cafe_lib.errors import CafeError, DigestError, LimitError, MalformedError, SignatureError, VersionError
from cafe_lib.image.bounds import bounded_uint, bytes_list, exact_bytes, exact_keys, page_multiple
from cafe_lib.wire.codec import decode, encode
from cafe_lib.wire.limits import CHUNK_BYTES, MAX_CHUNKS, MAX_MANIFEST_BYTES

MANIFEST_FORMAT: Final = 1
ABI_VERSION: Final = 2
PRODUCTION: Final = 1
DEBUG: Final = 2
ISA_NAMES: Final = {"x86-64": 1, "x86-64-v2": 2, "x86-64-v3": 3}
MAX_STACK_BYTES: Final = 256 << 20
MAX_HEAP_BYTES: Final = 16 << 30
MAX_SLOTS: Final = 64
MAX_SLOT_BYTES: Final = 64 << 20
MAX_VCPUS: Final = 16
MAX_BULK_BYTES: Final = 1 << 30
BULK_ALIGN: Final = 2 << 20
MAX_DEADLINE_MS: Final = 3_600_000
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,31}")

# COSE_Sign1 (RFC 9052 section 4.2): tag 18, array of 4, protected {1: -8 (EdDSA)}, empty unprotected map.
_COSE_PREFIX: Final = bytes.fromhex("d28443a10127a0")
_MAX_COSE_BYTES: Final = MAX_MANIFEST_BYTES + 128


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that is public about a secret binary; the fields' order is that of the encoded keys 1, 2...

    ``publisher`` is the SHA-256 of the publisher's Ed25519 public key; ``isa`` is ``enum cafe_isa`` of
    cafe_abi.h; ``image_bytes`` is the length of the plaintext that the chunks hold.

    :raises MalformedError: a field of the wrong type or form.
    :raises LimitError: a field out of its bounds.
    :raises VersionError: another ABI version.
    """

    name: str
    version: str
    publisher: bytes
    build_mode: int
    abi_version: int
    isa: int
    interface_digest: bytes
    stack_bytes: int
    heap_bytes: int
    slot_count: int
    slot_bytes: int
    vcpu_count: int
    bulk_bytes: int
    deadline_ms: int
    image_bytes: int
    chunk_names: tuple[bytes, ...]
    confidential_digest: bytes

    def __post_init__(self) -> None:
        for what, value, form in (("name", self.name, NAME), ("version", self.version, VERSION)):
            if not isinstance(value, str) or not form.fullmatch(value):
                raise MalformedError(f"manifest {what} does not match {form.pattern}")
        for what in ("publisher", "interface_digest", "confidential_digest"):
            exact_bytes(what, getattr(self, what), 32)
        if bounded_uint("abi_version", self.abi_version, 0, 2**32 - 1) != ABI_VERSION:
            raise VersionError(f"the package needs ABI version {self.abi_version}")
        bounded_uint("build_mode", self.build_mode, PRODUCTION, DEBUG)
        bounded_uint("isa", self.isa, 1, 3)
        page_multiple("stack_bytes", self.stack_bytes, 16384, MAX_STACK_BYTES)
        page_multiple("heap_bytes", self.heap_bytes, 4096, MAX_HEAP_BYTES)
        bounded_uint("slot_count", self.slot_count, 1, MAX_SLOTS)
        page_multiple("slot_bytes", self.slot_bytes, 4096, MAX_SLOT_BYTES)
        bounded_uint("vcpu_count", self.vcpu_count, 1, MAX_VCPUS)
        if bounded_uint("bulk_bytes", self.bulk_bytes, 0, MAX_BULK_BYTES) % BULK_ALIGN:
            raise MalformedError(f"bulk_bytes is not a multiple of {BULK_ALIGN}")
        bounded_uint("deadline_ms", self.deadline_ms, 1, MAX_DEADLINE_MS)
        bounded_uint("image_bytes", self.image_bytes, 4096, CHUNK_BYTES * MAX_CHUNKS)
        bytes_list("chunk_names", self.chunk_names, 32, MAX_CHUNKS)
        if len(self.chunk_names) != -(-self.image_bytes // CHUNK_BYTES):
            raise MalformedError("the number of chunks does not fit image_bytes")

    def encode(self) -> bytes:
        """Return the deterministic CBOR that is signed."""
        return encode({0: MANIFEST_FORMAT, **dict(enumerate(astuple(self), start=1))})

    def chunk_bytes(self, index: int) -> int:
        """Return the length of chunk ``index`` in bytes: all are full but perhaps the last."""
        return min(CHUNK_BYTES, self.image_bytes - index * CHUNK_BYTES)


_FIELD_NAMES: Final = tuple(field.name for field in fields(Manifest))


def parse_manifest(data: bytes) -> Manifest:
    """Parse the signed payload.

    :raises ProtocolError: as for :class:`Manifest`, or a bad encoding, or another format number.
    """
    value = decode(data, MAX_MANIFEST_BYTES)
    if isinstance(value, dict) and value.get(0) != MANIFEST_FORMAT:
        raise VersionError("unknown manifest format")
    items = exact_keys("manifest", value, len(_FIELD_NAMES) + 1)
    arguments = {name: items[key] for key, name in enumerate(_FIELD_NAMES, start=1)}
    if isinstance(names := arguments["chunk_names"], list):
        arguments["chunk_names"] = tuple(names)
    return Manifest(**arguments)  # type: ignore[arg-type]  # __post_init__ checks every type


@dataclass(frozen=True, slots=True)
class VerifiedManifest:
    """A manifest whose signature was checked against the publisher's key."""

    manifest: Manifest
    secret_binary_id: bytes
    cose: bytes


def publisher_id(public_key: bytes) -> bytes:
    """Return the SHA-256 of a raw 32-byte Ed25519 public key, which names the publisher."""
    return hashlib.sha256(public_key).digest()


def sign_manifest(key: Ed25519PrivateKey, manifest: Manifest) -> bytes:
    """Sign; Ed25519 is deterministic, so the same manifest gives the same bytes.

    :raises DigestError: the manifest names another publisher.
    """
    if publisher_id(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)) != manifest.publisher:
        raise DigestError("the manifest names another publisher than the signing key's")
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    signed = cwt.COSE.new(alg_auto_inclusion=True).encode(manifest.encode(), cwt.COSEKey.from_pem(pem))
    return bytes(signed)


def _split_cose(cose: bytes) -> tuple[bytes, bytes]:
    """Return payload and signature; only the one encoding that :func:`sign_manifest` makes is accepted."""
    if len(cose) > _MAX_COSE_BYTES:
        raise LimitError(f"signed manifest of {len(cose)} bytes")
    if not cose.startswith(_COSE_PREFIX):
        raise MalformedError("not a COSE_Sign1 with EdDSA and an empty unprotected header")
    parts = decode(b"\x82" + cose[len(_COSE_PREFIX) :], _MAX_COSE_BYTES)
    if not isinstance(parts, list) or not isinstance(parts[0], bytes):
        raise MalformedError("the signed payload is not a byte string")
    return parts[0], exact_bytes("signature", parts[1], 64)


def read_manifest_unverified(cose: bytes) -> Manifest:
    """Parse the manifest without checking who signed it: for display only.

    :raises ProtocolError: the bytes are not a signed manifest.
    """
    return parse_manifest(_split_cose(cose)[0])


def secret_binary_id(cose: bytes) -> bytes:
    """Return SHA-256 of the signed payload: the SecretBinaryID (unverified).

    :raises ProtocolError: the bytes are not a COSE_Sign1 of the one accepted form.
    """
    return hashlib.sha256(_split_cose(cose)[0]).digest()


def verify_manifest(cose: bytes, public_key: bytes) -> VerifiedManifest:
    """Check signature, publisher and every field.

    :param public_key: raw Ed25519 public key, 32 bytes, from a source that is trusted.
    :raises SignatureError: not signed by this key, or the manifest names another publisher.
    :raises ProtocolError: the bytes are not a signed manifest.
    """
    payload, _ = _split_cose(cose)
    try:
        public = Ed25519PublicKey.from_public_bytes(public_key)
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        cwt.COSE.new().decode(cose, cwt.COSEKey.from_pem(pem))
    except CafeError:
        raise
    except Exception as error:  # cwt lets errors of several libraries through
        raise SignatureError("the manifest's signature does not verify") from error
    manifest = parse_manifest(payload)
    if manifest.publisher != publisher_id(public_key):
        raise SignatureError("the manifest names another publisher than the signing key's")
    return VerifiedManifest(manifest, hashlib.sha256(payload).digest(), cose)
