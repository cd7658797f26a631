"""The key schedule: every hash, label and key derivation of the protocol, and its uses of HPKE (RFC 9180).

Each key has one direction and one purpose. Where several byte strings are hashed together, each is preceded
by its length (u32, big-endian), so that no two lists hash alike.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cafe_lib.errors import MalformedError, SignatureError
from cafe_lib.wire import limits

_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_MLKEM_PUBLIC_BYTES: Final = 1184
_MLKEM_SEED_BYTES: Final = 64

TRANSCRIPT_LABEL: Final = b"cafe transcript v1"
QUOTE_LABEL: Final = b"cafe quote v1"
RENEWAL_LABEL: Final = b"cafe renewal v1"
SESSION_SECRET_LABEL: Final = b"cafe session secret v1"
ENROLMENT_LABEL: Final = b"cafe enrolment v1"
CONFIDENTIAL_LABEL: Final = b"cafe sealed confidential v1"
RELEASE_KEY_LABEL: Final = b"cafe release key v1"


def _joined(*parts: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def _derive(secret: bytes, salt: bytes, purpose: str) -> bytes:
    info = b"cafe " + purpose.encode() + b" v1"
    return HKDF(hashes.SHA256(), limits.KEY_BYTES, salt, info).derive(secret)


# ------------------------------------------------------------------ enrolment


def enrolment_statement(request: bytes) -> bytes:
    """Return what the host proves: it made this encoded EnrolmentRequest. The host key signs exactly this."""
    return ENROLMENT_LABEL + hashlib.sha256(request).digest()


def enrolment_proof(activation_secret: bytes, request: bytes) -> bytes:
    """Return HMAC-SHA-256 of the statement under the secret that TPM2_ActivateCredential gave."""
    return hmac.digest(activation_secret, enrolment_statement(request), "sha256")


# ------------------------------------------------------------------ session


def transcript_hash(
    session_request: bytes, session_offer: bytes, host_id: bytes, sbs_root_public: bytes
) -> bytes:
    """Return the hash of all that was said, as sent (both SignedMessages), and of both identities."""
    return hashlib.sha256(
        TRANSCRIPT_LABEL + _joined(session_request, session_offer, host_id, sbs_root_public)
    ).digest()


def qualifying_data(transcript: bytes) -> bytes:
    """Return the 32 bytes the TPM quotes when a session is set up."""
    return hashlib.sha256(QUOTE_LABEL + transcript).digest()


def renewal_qualifying_data(transcript: bytes, nonce: bytes) -> bytes:
    """Return the 32 bytes the TPM quotes to renew: the transcript and the fresh nonce of the SBS."""
    return hashlib.sha256(RENEWAL_LABEL + _joined(transcript, nonce)).digest()


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """Keys of a session: `client_*` protect what the agent sends, `server_mac` what the SBS sends."""

    client_mac: bytes = field(repr=False)
    server_mac: bytes = field(repr=False)
    client_record_enc: bytes = field(repr=False)
    client_record_mac: bytes = field(repr=False)

    @classmethod
    def derive(cls, session_secret: bytes, transcript: bytes) -> Self:
        """Derive all keys by HKDF-SHA-256; the salt is the transcript hash."""
        purposes = ("client mac", "server mac", "client record enc", "client record mac")
        return cls(*(_derive(session_secret, transcript, purpose) for purpose in purposes))


@dataclass(frozen=True, slots=True)
class StreamKeys:
    """Keys of one record stream from the SBS, and the nonce it begins with."""

    grant_nonce: bytes
    grant_enc: bytes = field(repr=False)
    record_mac: bytes = field(repr=False)
    end_mac: bytes = field(repr=False)

    @classmethod
    def derive(
        cls, session_secret: bytes, transcript: bytes, request_digest: bytes, grant_nonce: bytes
    ) -> Self:
        """Derive the keys; `request_digest` is SHA-256 of the DeployRequest's record, as sent."""
        salt = transcript + request_digest + grant_nonce
        purposes = ("grant enc", "record mac", "end mac")
        return cls(grant_nonce, *(_derive(session_secret, salt, purpose) for purpose in purposes))


@dataclass(frozen=True, slots=True)
class StreamContext:
    """What the keys of a stream derive from, but for the nonce that the stream itself begins with."""

    session_secret: bytes = field(repr=False)
    transcript: bytes
    request_digest: bytes

    def keys(self, grant_nonce: bytes) -> StreamKeys:
        """Derive the keys of the stream that begins with `grant_nonce`."""
        return StreamKeys.derive(self.session_secret, self.transcript, self.request_digest, grant_nonce)


# ------------------------------------------------------------------ HPKE


@dataclass(frozen=True, slots=True)
class KemKeyPair:
    """An MLKEM768-X25519 key pair; `public` is ML-KEM-768 (1184 bytes), then X25519 (32)."""

    public: bytes
    private: MLKEM768X25519PrivateKey = field(repr=False)
    seed: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """Make a fresh key pair."""
        return cls._of(MLKEM768PrivateKey.generate(), X25519PrivateKey.generate())

    @classmethod
    def from_private_bytes(cls, data: bytes) -> Self:
        """Restore from `private_bytes()`; raises MalformedError."""
        if len(data) != limits.KEM_PRIVATE_BYTES:
            raise MalformedError("a KEM key of the wrong length")
        return cls._of(
            MLKEM768PrivateKey.from_seed_bytes(data[:_MLKEM_SEED_BYTES]),
            X25519PrivateKey.from_private_bytes(data[_MLKEM_SEED_BYTES:]),
        )

    @classmethod
    def _of(cls, lattice: MLKEM768PrivateKey, curve: X25519PrivateKey) -> Self:
        return cls(
            lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw(),
            MLKEM768X25519PrivateKey(lattice, curve),
            lattice.private_bytes_raw() + curve.private_bytes_raw(),
        )

    def private_bytes(self) -> bytes:
        """Return the ML-KEM seed (64 bytes), then the X25519 key (32)."""
        return self.seed


def seal_secret(kem_public: bytes, secret: bytes, info: bytes) -> bytes:
    """Seal by HPKE base mode; raises MalformedError for a public key that is none."""
    if len(kem_public) != limits.KEM_PUBLIC_BYTES:
        raise MalformedError("a KEM public key of the wrong length")
    try:
        key = MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(kem_public[:_MLKEM_PUBLIC_BYTES]),
            X25519PublicKey.from_public_bytes(kem_public[_MLKEM_PUBLIC_BYTES:]),
        )
        return _SUITE.encrypt(secret, key, info=info)
    except ValueError as error:
        raise MalformedError("not a KEM public key") from error


def open_secret(pair: KemKeyPair, sealed: bytes, info: bytes) -> bytes:
    """Open what `seal_secret` sealed with the same info; raises SignatureError."""
    try:
        return _SUITE.decrypt(sealed, pair.private, info=info)
    except (InvalidTag, ValueError) as error:
        raise SignatureError("a sealed secret does not open") from error


def session_secret_info(session_request: bytes, session_id: bytes) -> bytes:
    """Return the HPKE info of a session secret: it answers this SessionRequest, as sent, in this session."""
    return SESSION_SECRET_LABEL + hashlib.sha256(session_request).digest() + session_id


def release_key_id(kem_public: bytes) -> bytes:
    """Return the 32-byte id of an SBS release key, which publishers pin."""
    return hashlib.sha256(RELEASE_KEY_LABEL + kem_public).digest()


def _confidential_info(kem_public: bytes, secret_binary_id: bytes) -> bytes:
    return CONFIDENTIAL_LABEL + secret_binary_id + release_key_id(kem_public)


def seal_confidential(kem_public: bytes, secret_binary_id: bytes, confidential: bytes) -> bytes:
    """Seal a release's confidential part to the release key of an SBS; raises MalformedError."""
    return seal_secret(kem_public, confidential, _confidential_info(kem_public, secret_binary_id))


def open_confidential(pair: KemKeyPair, secret_binary_id: bytes, sealed: bytes) -> bytes:
    """Open a release's confidential part; raises SignatureError when it is not this release's or not ours."""
    return open_secret(pair, sealed, _confidential_info(pair.public, secret_binary_id))
