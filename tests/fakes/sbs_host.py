"""A host whose TPM is software: keys of the right kind, quotes and activation computed here."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash

from cafe_lib.evidence import credential, tpm
from cafe_lib.evidence.publickey import ek_fingerprint, name_of
from cafe_lib.wire import keys, limits
from cafe_lib.wire.messages import (
    SUITES,
    EnrolmentChallenge,
    EnrolmentProof,
    EnrolmentRequest,
    EnrolmentResult,
    SessionRequest,
)
from hypervisor_agent.trusted import QuoteAsk, TrustedSession

_BORN_INSIDE = 1 << 1 | 1 << 4 | 1 << 5
AK_ATTRIBUTES = _BORN_INSIDE | 1 << 6 | 1 << 16 | 1 << 18
EK_ATTRIBUTES = _BORN_INSIDE | 1 << 7 | 1 << 16 | 1 << 17
GOOD = hashlib.sha256(b"a good measurement").digest()
PCR = 14


def sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def pack_public(key: ec.EllipticCurvePrivateKey, attributes: int, details: bytes) -> bytes:
    """Pack a TPM2B_PUBLIC; `details` are the symmetric algorithm and the scheme."""
    point = key.public_key().public_numbers()
    head = struct.pack(">HHI", tpm.ALG_ECC, tpm.ALG_SHA256, attributes) + sized(b"")
    tail = struct.pack(">HH", tpm.CURVE_P256, tpm.ALG_NULL)
    place = sized(point.x.to_bytes(32, "big")) + sized(point.y.to_bytes(32, "big"))
    return sized(head + details + tail + place)


@dataclass
class SoftTpm:
    """An EK, as many AKs as wanted, PCRs, and a clock."""

    ek: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    pcrs: dict[int, bytes] = field(default_factory=lambda: {PCR: GOOD})
    clock: int = 1000
    reset_count: int = 3
    restart_count: int = 0

    @property
    def ek_public(self) -> bytes:
        aes = struct.pack(">HHHH", tpm.ALG_AES, 128, tpm.ALG_CFB, tpm.ALG_NULL)
        return pack_public(self.ek, EK_ATTRIBUTES, aes)

    @property
    def ek_digest(self) -> bytes:
        return ek_fingerprint(tpm.parse_public(self.ek_public))

    def activate(self, ak_public: bytes, challenge: EnrolmentChallenge) -> bytes:
        """TPM2_ActivateCredential for the AK of that public area; fails the test if the TPM would refuse."""
        ek_public = tpm.parse_public(self.ek_public)
        name = name_of(tpm.parse_public(ak_public))
        point = challenge.encrypted_secret[2:]
        x, y = point[2:34], point[36:68]
        peer = ec.EllipticCurvePublicNumbers(
            int.from_bytes(x, "big"), int.from_bytes(y, "big"), ec.SECP256R1()
        ).public_key()
        own_x = self.ek.public_key().public_numbers().x.to_bytes(32, "big")
        seed = ConcatKDFHash(hashes.SHA256(), 32, b"IDENTITY\0" + x + own_x).derive(
            self.ek.exchange(ec.ECDH(), peer)
        )
        blob = challenge.credential_blob[2:]
        outer, identity = blob[2:34], blob[34:]
        integrity = credential._kdfa(ek_public, seed, b"INTEGRITY", b"", 256)
        assert hmac.compare_digest(outer, hmac.digest(integrity, identity + name, "sha256")), "another AK"
        storage = credential._kdfa(ek_public, seed, b"STORAGE", name, 128)
        return (Cipher(AES(storage), CFB(bytes(16))).decryptor().update(identity))[2:]

    def quote(
        self, ak: ec.EllipticCurvePrivateKey, ask: QuoteAsk, shown: Mapping[int, bytes] | None = None
    ) -> tuple[bytes, bytes, tuple[tuple[int, int, bytes], ...]]:
        """TPM2_Quote: TPMS_ATTEST, TPMT_SIGNATURE and the PCR values."""
        self.clock += 1
        values = shown or self.pcrs
        banks, found = b"", []
        for bank, indices in ask.selection:
            bits = sum(1 << index for index in indices)
            banks += struct.pack(">HB", bank, 3) + bits.to_bytes(3, "little")
            found += [(bank, index, values[index]) for index in indices]
        digest = hashlib.sha256(b"".join(value for _, _, value in found)).digest()
        attest = (
            tpm.GENERATED
            + struct.pack(">H", tpm.ST_ATTEST_QUOTE)
            + sized(b"signer")
            + sized(ask.qualifying_data)
            + struct.pack(">QIIBQ", self.clock, self.reset_count, self.restart_count, 1, 7)
            + struct.pack(">I", len(ask.selection))
            + banks
            + sized(digest)
        )
        r, s = decode_dss_signature(ak.sign(attest, ec.ECDSA(hashes.SHA256())))
        parts = sized(r.to_bytes(32, "big")) + sized(s.to_bytes(32, "big"))
        return attest, struct.pack(">HH", tpm.ALG_ECDSA, tpm.ALG_SHA256) + parts, tuple(found)


@dataclass
class SoftHost:
    """What a host keeps, and the messages it makes; the checks of the answers are the agent's own."""

    name: str
    tpm: SoftTpm = field(default_factory=SoftTpm)
    ak: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    host_id: bytes = b""
    sbs_root: bytes = b""

    @property
    def ak_public(self) -> bytes:
        scheme = struct.pack(">HHH", tpm.ALG_NULL, tpm.ALG_ECDSA, tpm.ALG_SHA256)
        return pack_public(self.ak, AK_ATTRIBUTES, scheme)

    def enrolment_request(self) -> bytes:
        public = self.key.public_key().public_bytes_raw()
        nonce = secrets.token_bytes(32)
        return EnrolmentRequest(self.name, self.tpm.ek_public, self.ak_public, public, nonce).encode()

    def prove(self, request: bytes, challenge: bytes) -> tuple[bytes, bytes, bytes]:
        """Activate; return the enrolment's id, the proof, and the activation secret."""
        asked = EnrolmentChallenge.parse(challenge)
        secret = self.tpm.activate(self.ak_public, asked)
        return asked.enrolment_id, self.proof(asked.enrolment_id, request, secret), secret

    def proof(self, enrolment_id: bytes, request: bytes, secret: bytes) -> bytes:
        signature = self.key.sign(keys.enrolment_statement(request))
        return EnrolmentProof(enrolment_id, keys.enrolment_proof(secret, request), signature).encode()

    def accept(self, secret: bytes, result: bytes) -> None:
        """Take the result of the enrolment."""
        opened = EnrolmentResult.open(secret, result)
        self.host_id, self.sbs_root = opened.host_id, opened.sbs_root

    def session_request(self) -> tuple[bytes, keys.KemKeyPair]:
        kem = keys.KemKeyPair.generate()
        nonce = secrets.token_bytes(limits.NONCE_BYTES)
        return SessionRequest(self.host_id, kem.public, nonce, SUITES).sign(self.key), kem

    def trusted(self, request: bytes, kem: keys.KemKeyPair) -> TrustedSession:
        return TrustedSession(self.host_id, self.sbs_root, request, kem)

    def evidence(self, session: TrustedSession, ask: QuoteAsk) -> bytes:
        """Quote what was asked and seal it."""
        return session.seal_evidence(*self.tpm.quote(self.ak, ask))
