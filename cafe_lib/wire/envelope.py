"""The two envelopes: a body with an Ed25519 signature, and a body with an HMAC-SHA-256.

What is signed or MACed is `"cafe " label " v1" || body`; the label is the name of the message inside, so
that no message can stand in for another.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cafe_lib.errors import LimitError, SignatureError
from cafe_lib.wire import limits
from cafe_lib.wire.schema import Blob, Bytes32, Bytes64, Message

_ENVELOPE_BYTES = 128
Body = Annotated[bytes, Blob(1, limits.MAX_EVIDENCE_BYTES)]


@dataclass(frozen=True, slots=True)
class SignedMessage(Message):
    """A body and the Ed25519 signature over its label and itself."""

    KIND: ClassVar[int] = 1
    LIMIT: ClassVar[int] = limits.MAX_MESSAGE_BYTES + _ENVELOPE_BYTES

    body: Body
    signature: Bytes64


@dataclass(frozen=True, slots=True)
class MacMessage(Message):
    """A body and the HMAC-SHA-256 over its label and itself."""

    KIND: ClassVar[int] = 2
    LIMIT: ClassVar[int] = limits.MAX_EVIDENCE_BYTES + _ENVELOPE_BYTES

    body: Body
    mac: Bytes32


def labelled(label: str, body: bytes) -> bytes:
    """Return what is signed or MACed for `body` under `label`."""
    return b"cafe " + label.encode() + b" v1" + body


def sign_message(key: Ed25519PrivateKey, label: str, body: bytes) -> bytes:
    """Encode a SignedMessage."""
    return SignedMessage(body, key.sign(labelled(label, body))).encode()


def verify_signed(public_key: bytes, label: str, data: bytes) -> bytes:
    """Return the body of a SignedMessage, genuine under a raw Ed25519 key; raises SignatureError."""
    message = SignedMessage.parse(data)
    try:
        key = Ed25519PublicKey.from_public_bytes(public_key)
        key.verify(message.signature, labelled(label, message.body))
    except (InvalidSignature, ValueError) as error:
        raise SignatureError(f"{label}: the signature does not verify") from error
    return message.body


def seal_mac(key: bytes, label: str, body: bytes) -> bytes:
    """Encode a MacMessage."""
    return MacMessage(body, hmac.digest(key, labelled(label, body), "sha256")).encode()


def open_mac(key: bytes, label: str, data: bytes) -> bytes:
    """Return the body of a MacMessage, genuine under `key`; raises SignatureError."""
    message = MacMessage.parse(data)
    if not hmac.compare_digest(message.mac, hmac.digest(key, labelled(label, message.body), "sha256")):
        raise SignatureError(f"{label}: the MAC does not verify")
    return message.body


class SignedBody(Message):
    """A message that travels in a SignedMessage."""

    __slots__ = ()
    LABEL: ClassVar[str]

    def sign(self, key: Ed25519PrivateKey) -> bytes:
        """Encode and sign."""
        return sign_message(key, self.LABEL, self.encode())

    @classmethod
    def verify(cls, public_key: bytes, data: bytes) -> Self:
        """Verify, then parse; raises SignatureError, MalformedError or LimitError."""
        return cls.parse(verify_signed(public_key, cls.LABEL, data))

    @classmethod
    def read_unverified(cls, data: bytes) -> Self:
        """Parse without verifying, only to learn which key to verify with."""
        return cls.parse(SignedMessage.parse(data).body)


class MacBody(Message):
    """A message that travels in a MacMessage."""

    __slots__ = ()
    LABEL: ClassVar[str]

    def seal(self, key: bytes) -> bytes:
        """Encode and MAC."""
        return seal_mac(key, self.LABEL, self.encode())

    @classmethod
    def open(cls, key: bytes, data: bytes) -> Self:
        """Verify, then parse; raises SignatureError, MalformedError or LimitError."""
        if len(data) > cls.LIMIT + _ENVELOPE_BYTES:
            raise LimitError(f"{cls.LABEL} of {len(data)} bytes, at most {cls.LIMIT}")
        return cls.parse(open_mac(key, cls.LABEL, data))
