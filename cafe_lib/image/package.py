"""The package file NAME.cafe: signed manifest, wrapped or sealed confidential part, encrypted chunks."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cafe_lib.errors import DigestError, LimitError, MalformedError, SignatureError, VersionError
from cafe_lib.image.confidential import confidential_digest
from cafe_lib.image.manifest import Manifest, read_manifest_unverified, secret_binary_id
from cafe_lib.wire.keys import seal_confidential
from cafe_lib.wire.limits import CHUNK_BYTES, MAX_CONFIDENTIAL_BYTES, MAX_MANIFEST_BYTES

MAGIC: Final = b"CAFEPKG1"
WRAPPED: Final = 1
SEALED: Final = 2
MAX_COSE_BYTES: Final = MAX_MANIFEST_BYTES + 128
# An HPKE encapsulation of MLKEM768-X25519 and the AEAD tag stay well under this.
MAX_BLOB_BYTES: Final = MAX_CONFIDENTIAL_BYTES + 4096
MAX_HEADER_BYTES: Final = len(MAGIC) + 1 + 4 + MAX_COSE_BYTES + 4 + MAX_BLOB_BYTES
_WRAP_LABEL: Final = b"cafe wrap v1"


def encode_head(kind: int, cose: bytes, blob: bytes) -> bytes:
    """Return the part of a package before its chunks."""
    sizes = (len(cose).to_bytes(4, "big"), len(blob).to_bytes(4, "big"))
    return MAGIC + bytes([kind]) + sizes[0] + cose + sizes[1] + blob


def _wrap_key(publisher_secret: bytes, binary_id: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=_WRAP_LABEL + binary_id).derive(publisher_secret)


def wrap_confidential(publisher_secret: bytes, binary_id: bytes, confidential: bytes) -> bytes:
    """Encrypt the confidential part for its publisher; the id commits to it, so the key has one plaintext."""
    return AESGCM(_wrap_key(publisher_secret, binary_id)).encrypt(bytes(12), confidential, None)


def unwrap_confidential(publisher_secret: bytes, cose: bytes, blob: bytes) -> bytes:
    """Open the confidential part of a wrapped package and check it against the (unverified) manifest.

    :raises SignatureError: wrapped for another publisher, or changed.
    :raises DigestError: it is not the one the manifest names.
    """
    try:
        key = _wrap_key(publisher_secret, secret_binary_id(cose))
        confidential = AESGCM(key).decrypt(bytes(12), blob, None)
    except InvalidTag as error:
        raise SignatureError("the confidential part was not wrapped by this publisher") from error
    if not hmac.compare_digest(
        confidential_digest(confidential), read_manifest_unverified(cose).confidential_digest
    ):
        raise DigestError("the confidential part is not the one the manifest names")
    return confidential


@dataclass(frozen=True, slots=True)
class PackageHead:
    """What comes before the chunks. ``manifest`` is unverified."""

    kind: int
    cose: bytes
    blob: bytes
    manifest: Manifest
    head_bytes: int


class PackageStream:
    """Push parser: feed bytes as they come, get whole chunks, each checked against its name.

    Holds one head and one chunk at most. After an error it must not be used again.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: PackageHead | None = None
        self._next = 0

    @property
    def head(self) -> PackageHead | None:
        """The head, once all of it has come."""
        return self._head

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Yield the ciphertext of each chunk that ``data`` completes; consume the iterator to the end.

        :raises ProtocolError: not a package, or bytes after its last chunk.
        :raises DigestError: a chunk differs from its name.
        """
        for start in range(0, len(data), CHUNK_BYTES):
            self._buffer += data[start : start + CHUNK_BYTES]
            if self._head is None:
                self._head = parse_head(self._buffer)
                if self._head is None:
                    continue
                del self._buffer[: self._head.head_bytes]
            yield from self._take(self._head.manifest)

    def _take(self, manifest: Manifest) -> Iterator[bytes]:
        names = manifest.chunk_names
        while self._next < len(names) and len(self._buffer) >= (size := manifest.chunk_bytes(self._next)):
            chunk = bytes(self._buffer[:size])
            if hashlib.sha256(chunk).digest() != names[self._next]:
                raise DigestError(f"chunk {self._next} differs from its name")
            del self._buffer[:size]
            self._next += 1
            yield chunk
        if self._next == len(names) and self._buffer:
            raise MalformedError("bytes after the last chunk")

    def finish(self) -> PackageHead:
        """Return the head once everything has come.

        :raises MalformedError: the package is cut short.
        """
        if self._head is None or self._next < len(self._head.manifest.chunk_names):
            raise MalformedError("the package is cut short")
        return self._head


def _sized(data: bytes | bytearray, offset: int, most: int) -> slice | None:
    """Return where the length-prefixed part at ``offset`` lies; None if more bytes are needed."""
    if len(data) < offset + 4:
        return None
    size = int.from_bytes(data[offset : offset + 4], "big")
    if size > most:
        raise LimitError(f"a part of the package has {size} bytes")
    return slice(offset + 4, offset + 4 + size) if len(data) >= offset + 4 + size else None


def parse_head(data: bytes | bytearray) -> PackageHead | None:
    """Parse the head at the start of ``data``; None if more bytes are needed.

    :raises ProtocolError: this can never become a package.
    """
    if not MAGIC.startswith(data[: len(MAGIC)]):
        raise MalformedError("not a CAFE package")
    if len(data) <= len(MAGIC):
        return None
    if (kind := data[len(MAGIC)]) not in (WRAPPED, SEALED):
        raise VersionError(f"package kind {kind}")
    if (cose := _sized(data, len(MAGIC) + 1, MAX_COSE_BYTES)) is None:
        return None
    if (blob := _sized(data, cose.stop, MAX_BLOB_BYTES)) is None:
        return None
    signed = bytes(data[cose])
    return PackageHead(kind, signed, bytes(data[blob]), read_manifest_unverified(signed), blob.stop)


@dataclass(frozen=True, slots=True)
class Package:
    """A package on disk; ``manifest`` is unverified, chunks are read when asked for."""

    path: Path
    kind: int
    cose: bytes
    blob: bytes
    manifest: Manifest
    head_bytes: int

    @property
    def secret_binary_id(self) -> bytes:
        """SHA-256 of the signed payload."""
        return secret_binary_id(self.cose)

    def chunks(self) -> Iterator[bytes]:
        """Yield every chunk's ciphertext, each checked against its name, then check that the file ends.

        :raises DigestError: a chunk differs from its name.
        :raises MalformedError: the file is cut short, or goes on.
        """
        stream = PackageStream()
        with self.path.open("rb") as file:
            while data := file.read(CHUNK_BYTES):
                yield from stream.feed(data)
        stream.finish()


def open_package(path: Path) -> Package:
    """Read the head of a package file and check the file's size.

    :raises ProtocolError: not a package, cut short, or too long.
    :raises OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = parse_head(file.read(MAX_HEADER_BYTES))
    if head is None or size < head.head_bytes + head.manifest.image_bytes:
        raise MalformedError("the package is cut short")
    if size > head.head_bytes + head.manifest.image_bytes:
        raise MalformedError("bytes after the last chunk")
    return Package(path, head.kind, head.cose, head.blob, head.manifest, head.head_bytes)


def write_package(path: Path, head: bytes, chunks: Iterable[bytes]) -> None:
    """Write a package file; a name appears only once it is complete."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(head)
        for chunk in chunks:
            file.write(chunk)
    partial.replace(path)


def reseal(package: Package, publisher_secret: bytes, release_key: bytes, out: Path) -> None:
    """Write the package of kind 2 that is pushed: the confidential part sealed to the SBS's release key.

    :param release_key: the SBS's public release key as P pins it, 1216 bytes.
    :raises VersionError: the package is not wrapped (kind 1).
    :raises VerificationError: it is not this publisher's, or was changed.
    """
    if package.kind != WRAPPED:
        raise VersionError("only a package as built by `cafe build` can be sealed")
    confidential = unwrap_confidential(publisher_secret, package.cose, package.blob)
    sealed = seal_confidential(release_key, package.secret_binary_id, confidential)
    write_package(out, encode_head(SEALED, package.cose, sealed), package.chunks())
