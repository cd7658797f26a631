"""The publisher's identity on disk: an Ed25519 signing key and the secret that chunk keys derive from."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from cafe_lib.errors import BuildError, ConflictError
from cafe_lib.image.manifest import publisher_id

KEY_FILE: Final = "signing-key.pem"
SECRET_FILE: Final = "chunk-secret"  # noqa: S105  # a file name
SECRET_BYTES: Final = 32
_MAX_FILE_BYTES: Final = 4096
_INIT_HINT: Final = "make one with `cafe publisher init --dir DIR`"


@dataclass(frozen=True, slots=True)
class PublisherIdentity:
    """Signing key and 32-byte secret; neither is ever printed or sent."""

    signing_key: Ed25519PrivateKey
    secret: bytes

    def __repr__(self) -> str:
        return f"PublisherIdentity({self.id.hex()})"

    @property
    def public_key(self) -> bytes:
        """The raw Ed25519 public key, 32 bytes."""
        return self.signing_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def id(self) -> bytes:
        """SHA-256 of the public key, as the manifest names the publisher."""
        return publisher_id(self.public_key)


def create_publisher(directory: Path) -> PublisherIdentity:
    """Make a new identity; its files are readable by their owner only.

    :raises ConflictError: there is one already.
    :raises BuildError: the directory cannot be written.
    """
    identity = PublisherIdentity(Ed25519PrivateKey.generate(), secrets.token_bytes(SECRET_BYTES))
    pem = identity.signing_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any((directory / name).exists() for name in (KEY_FILE, SECRET_FILE)):
            raise ConflictError(f"{directory} holds a publisher's identity already")
        _write_private(directory / SECRET_FILE, identity.secret)
        _write_private(directory / KEY_FILE, pem)
    except OSError as error:
        raise BuildError(f"{directory}: {error.strerror}") from error
    return identity


def load_publisher(directory: Path) -> PublisherIdentity:
    """Read an identity.

    :raises BuildError: it is missing, damaged, or readable by others.
    """
    secret = _read_private(directory / SECRET_FILE)
    if len(secret) != SECRET_BYTES:
        raise BuildError(f"{directory / SECRET_FILE} does not have {SECRET_BYTES} bytes")
    try:
        key = load_pem_private_key(_read_private(directory / KEY_FILE), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BuildError(f"{directory / KEY_FILE} is not an unencrypted PEM private key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BuildError(f"{directory / KEY_FILE} is not an Ed25519 key")
    return PublisherIdentity(key, secret)


def _write_private(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _read_private(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise BuildError(f"{path} can be read by others", hint=f"chmod 600 {path}")
            return file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise BuildError(f"no publisher's identity: {path}: {error.strerror}", hint=_INIT_HINT) from error
