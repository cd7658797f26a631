"""The keys of the SBS in files that only their owner may read.

root.key (Ed25519, needed only to certify), root.pub, signing.key (Ed25519), signing.cert (the root's
SigningCertificate), release.key (HPKE: ML-KEM seed, X25519 key), store.key (AES-256, seals session secrets).
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cafe_lib.errors import CafeError, ConflictError, HostError, SignatureError
from cafe_lib.wire import limits
from cafe_lib.wire.keys import KemKeyPair
from cafe_lib.wire.session import SigningCertificate, verify_certificate

ROOT_KEY, ROOT_PUBLIC = "root.key", "root.pub"
SIGNING_KEY, CERTIFICATE = "signing.key", "signing.cert"
RELEASE_KEY, STORE_KEY = "release.key", "store.key"
CERTIFIED_SECONDS: Final = 365 * 24 * 3600
RENEW_SECONDS: Final = 30 * 24 * 3600
_EARLY_SECONDS: Final = 24 * 3600
_MAX_FILE_BYTES: Final = 4096
_NONCE_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """See the port `Keys`."""

    root_public: bytes
    signing_key: Ed25519PrivateKey = field(repr=False)
    certificate: bytes
    release_key: KemKeyPair = field(repr=False)
    store_key: bytes = field(repr=False)

    def seal(self, context: bytes, secret: bytes) -> bytes:
        """See the port: nonce, then AES-256-GCM with the context as associated data."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + AESGCM(self.store_key).encrypt(nonce, secret, context)

    def open(self, context: bytes, sealed: bytes) -> bytes:
        """See the port."""
        try:
            return AESGCM(self.store_key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context)
        except (InvalidTag, ValueError) as error:
            raise SignatureError("a stored secret does not open") from error


def create_keys(folder: Path, now: int) -> KeyFiles:
    """Make all keys in a new folder; raises ConflictError when there are keys already, HostError.

    Whenever it is killed there are all keys or none: the folder gets its name last.
    """
    fresh = folder.with_name(f"{folder.name}.new")
    try:
        if folder.exists() and any(folder.iterdir()):
            raise ConflictError(f"{folder} already holds keys")
        if fresh.exists():
            shutil.rmtree(fresh)
        fresh.mkdir(mode=0o700, parents=True)
        _write_keys(fresh, now)
        fresh.rename(folder)
    except OSError as error:
        raise HostError(f"{error.filename}: {error.strerror}") from error
    return load_keys(folder, now)


def _write_keys(folder: Path, now: int) -> None:
    root, signing = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    _write(folder / ROOT_KEY, root.private_bytes_raw())
    _write(folder / ROOT_PUBLIC, root.public_key().public_bytes_raw())
    _write(folder / SIGNING_KEY, signing.private_bytes_raw())
    _write(folder / RELEASE_KEY, KemKeyPair.generate().private_bytes())
    _write(folder / STORE_KEY, secrets.token_bytes(limits.KEY_BYTES))
    _write(folder / CERTIFICATE, _certify(root, signing, now))


def load_keys(folder: Path, now: int) -> KeyFiles:
    """Read the keys; a certificate about to end is made anew if the root key is there.

    :raises HostError: a file is missing, unusable, or readable by others; or the certificate has ended.
    """
    root_public = _read(folder / ROOT_PUBLIC, limits.KEY_BYTES)
    signing = Ed25519PrivateKey.from_private_bytes(_read(folder / SIGNING_KEY, limits.KEY_BYTES))
    release = KemKeyPair.from_private_bytes(_read(folder / RELEASE_KEY, limits.KEM_PRIVATE_BYTES))
    store_key = _read(folder / STORE_KEY, limits.KEY_BYTES)
    if (folder / ROOT_KEY).exists():
        _keep_certified(folder, signing, now)
    certificate = _read(folder / CERTIFICATE)
    try:
        said = verify_certificate(root_public, certificate, now)
    except CafeError as error:
        raise HostError(f"{folder / CERTIFICATE}: {error.detail}") from error
    if said.public_key != signing.public_key().public_bytes_raw():
        raise HostError(f"{folder / CERTIFICATE}: for another key")
    return KeyFiles(root_public, signing, certificate, release, store_key)


def _keep_certified(folder: Path, signing: Ed25519PrivateKey, now: int) -> None:
    root = Ed25519PrivateKey.from_private_bytes(_read(folder / ROOT_KEY, limits.KEY_BYTES))
    try:
        verify_certificate(
            root.public_key().public_bytes_raw(), _read(folder / CERTIFICATE), now + RENEW_SECONDS
        )
    except CafeError:
        fresh = folder / f"{CERTIFICATE}.new"
        fresh.unlink(missing_ok=True)
        _write(fresh, _certify(root, signing, now))
        fresh.replace(folder / CERTIFICATE)


def _certify(root: Ed25519PrivateKey, signing: Ed25519PrivateKey, now: int) -> bytes:
    public = signing.public_key().public_bytes_raw()
    return SigningCertificate(public, now - _EARLY_SECONDS, now + CERTIFIED_SECONDS).sign(root)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path, expected_bytes: int | None = None) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}", hint="make the keys with `cafe-sbs init`") from error
    if stat.S_IMODE(mode) & 0o077:
        raise HostError(f"{path}: others than its owner may read it", hint=f"chmod 600 {path}")
    if expected_bytes is not None and len(data) != expected_bytes:
        raise HostError(f"{path}: not a key")
    return data
