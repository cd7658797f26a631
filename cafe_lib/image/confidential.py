"""The confidential part of a package (chunk keys and tags) and the encryption of single chunks."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cafe_lib.errors import LimitError, MalformedError, SignatureError, VersionError
from cafe_lib.image.bounds import bytes_list, exact_bytes, exact_keys
from cafe_lib.wire.codec import decode, encode
from cafe_lib.wire.limits import CHUNK_BYTES, MAX_CHUNKS, MAX_CONFIDENTIAL_BYTES

CONFIDENTIAL_FORMAT: Final = 1
KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
MAX_BOUNDARY_CHARACTERS: Final = 128 * 1024
_CHUNK_LABEL: Final = b"cafe chunk v1"
_SALT_LABEL: Final = b"cafe salt v1"
_DIGEST_LABEL: Final = b"cafe confidential v1"
# A key encrypts exactly one plaintext, from which it is derived, so the nonce never serves two texts.
_ZERO_NONCE: Final = bytes(12)


@dataclass(frozen=True, slots=True)
class Confidential:
    """What decrypts a package: ``keys[i]`` and ``tags[i]`` belong to chunk i.

    ``salt`` (32 bytes, from the publisher's secret) keeps the digest in the manifest from confirming a guess.
    ``boundary`` describes what crosses it, for `cafe inspect` only.

    :raises ProtocolError: a field of the wrong type, length or count.
    """

    salt: bytes
    keys: tuple[bytes, ...]
    tags: tuple[bytes, ...]
    boundary: str = ""

    def __post_init__(self) -> None:
        exact_bytes("salt", self.salt, 32)
        bytes_list("keys", self.keys, KEY_BYTES, MAX_CHUNKS)
        bytes_list("tags", self.tags, TAG_BYTES, MAX_CHUNKS)
        if len(self.keys) != len(self.tags):
            raise MalformedError("as many keys as tags are needed")
        if not isinstance(self.boundary, str):
            raise MalformedError("the boundary's description is not text")
        if len(self.boundary) > MAX_BOUNDARY_CHARACTERS:
            raise LimitError("the boundary's description is too long")

    def __repr__(self) -> str:
        return f"Confidential({len(self.keys)} chunks)"

    def encode(self) -> bytes:
        """Return the deterministic CBOR that the manifest's digest covers."""
        fields = (CONFIDENTIAL_FORMAT, self.salt, list(self.keys), list(self.tags), self.boundary)
        return encode(dict(enumerate(fields)))


def parse_confidential(data: bytes) -> Confidential:
    """Parse the confidential part.

    :raises ProtocolError: as for :class:`Confidential`, or a bad encoding, or another format number.
    """
    value = decode(data, MAX_CONFIDENTIAL_BYTES)
    if isinstance(value, dict) and value.get(0) != CONFIDENTIAL_FORMAT:
        raise VersionError("unknown format of the confidential part")
    items = exact_keys("confidential part", value, 5)
    return Confidential(
        exact_bytes("salt", items[1], 32),
        bytes_list("keys", items[2], KEY_BYTES, MAX_CHUNKS),
        bytes_list("tags", items[3], TAG_BYTES, MAX_CHUNKS),
        items[4],  # type: ignore[arg-type]  # __post_init__ checks it
    )


def confidential_digest(data: bytes) -> bytes:
    """Return what the manifest holds about the encoded confidential part."""
    return hashlib.sha256(_DIGEST_LABEL + data).digest()


def derive_salt(publisher_secret: bytes, keys: tuple[bytes, ...]) -> bytes:
    """Return the salt of a package: the same for the same chunks, unknown to all but the publisher."""
    return hmac.digest(publisher_secret, _SALT_LABEL + hashlib.sha256(b"".join(keys)).digest(), "sha256")


def encrypt_chunk(publisher_secret: bytes, plain: bytes | memoryview) -> tuple[bytes, bytes, bytes, bytes]:
    """Encrypt one chunk under the key derived from it, so that equal chunks of a publisher coincide.

    :return: name (SHA-256 of the ciphertext), key, tag, ciphertext.
    :raises LimitError: the chunk is empty or longer than CHUNK_BYTES.
    """
    if not 1 <= len(plain) <= CHUNK_BYTES:
        raise LimitError(f"a chunk of {len(plain)} bytes")
    message = _CHUNK_LABEL + len(plain).to_bytes(4, "big") + hashlib.sha256(plain).digest()
    key = hmac.digest(publisher_secret, message, "sha256")
    sealed = AESGCM(key).encrypt(_ZERO_NONCE, bytes(plain), None)
    ciphertext, tag = sealed[:-TAG_BYTES], sealed[-TAG_BYTES:]
    return hashlib.sha256(ciphertext).digest(), key, tag, ciphertext


def decrypt_chunk_into(key: bytes, tag: bytes, ciphertext: bytes | memoryview, target: memoryview) -> None:
    """Decrypt into ``target``, which has the ciphertext's length; on failure it is left zeroed.

    :raises LimitError: lengths differ, or are over the bound.
    :raises SignatureError: the tag does not verify.
    """
    if len(target) != len(ciphertext) or len(target) > CHUNK_BYTES:
        raise LimitError(f"a chunk of {len(ciphertext)} bytes for a place of {len(target)}")
    mode = modes.GCM(_ZERO_NONCE, exact_bytes("tag", tag, TAG_BYTES))
    cipher = Cipher(algorithms.AES(exact_bytes("key", key, KEY_BYTES)), mode)
    decryptor = cipher.decryptor()
    try:
        decryptor.update_into(ciphertext, target)
        decryptor.finalize()
    except InvalidTag as error:
        target[:] = bytes(len(target))
        raise SignatureError("a chunk's tag does not verify") from error
