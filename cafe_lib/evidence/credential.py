"""TPM2_MakeCredential in software (Part 1, 24 and annexes B.10.4 and C.6.4).

Only the TPM that holds the endorsement key *and* a key of exactly this name gets the secret back.
"""

from __future__ import annotations

import hmac
import os
import struct

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from cafe_lib.errors import LimitError
from cafe_lib.evidence import tpm
from cafe_lib.evidence.ak import verify_ek_public
from cafe_lib.evidence.publickey import HASHES, ecc_key, rsa_key

_IDENTITY = b"IDENTITY\0"


def make_credential(ek_public: tpm.Public, ak_name: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """Return (TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET) for TPM2_ActivateCredential.

    `secret` is at most a digest of the EK's name algorithm long. Raises LimitError, or QuoteError for a key
    that cannot be an EK.
    """
    verify_ek_public(ek_public)
    digest_bytes = tpm.DIGEST_BYTES[ek_public.name_alg]
    if not 0 < len(secret) <= digest_bytes:
        raise LimitError(f"an activation secret of {len(secret)} bytes")
    seed, encrypted_seed = _share_seed(ek_public, digest_bytes)
    symmetric_bits = ek_public.symmetric[1] if ek_public.symmetric else 0
    storage_key = _kdfa(ek_public, seed, b"STORAGE", ak_name, symmetric_bits)
    cipher = Cipher(AES(storage_key), CFB(bytes(16))).encryptor()
    identity = cipher.update(_sized(secret)) + cipher.finalize()
    integrity_key = _kdfa(ek_public, seed, b"INTEGRITY", b"", 8 * digest_bytes)
    outer = hmac.digest(integrity_key, identity + ak_name, tpm.HASH_NAMES[ek_public.name_alg])
    return _sized(_sized(outer) + identity), _sized(encrypted_seed)


def _sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _share_seed(ek: tpm.Public, digest_bytes: int) -> tuple[bytes, bytes]:
    """Return a fresh seed and its form for the TPM: RSA-OAEP, or an ephemeral ECDH point."""
    algorithm = HASHES[ek.name_alg]
    if ek.kind == tpm.ALG_RSA:
        seed = os.urandom(digest_bytes)
        oaep = padding.OAEP(padding.MGF1(algorithm), algorithm, _IDENTITY)
        return seed, rsa_key(ek).encrypt(seed, oaep)
    peer = ecc_key(ek)
    width = (peer.curve.key_size + 7) // 8
    ephemeral = ec.generate_private_key(peer.curve)
    shared = ephemeral.exchange(ec.ECDH(), peer)
    own = ephemeral.public_key().public_numbers()
    x, y = own.x.to_bytes(width, "big"), own.y.to_bytes(width, "big")
    parties = x + peer.public_numbers().x.to_bytes(width, "big")
    seed = ConcatKDFHash(algorithm, digest_bytes, _IDENTITY + parties).derive(shared)
    return seed, _sized(x) + _sized(y)


def _kdfa(ek: tpm.Public, seed: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """KDFa (Part 1, 11.4.10.2): SP 800-108 in counter mode with HMAC."""
    return KBKDFHMAC(
        algorithm=HASHES[ek.name_alg],
        mode=Mode.CounterMode,
        length=bits // 8,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=label,
        context=context,
        fixed=None,
    ).derive(seed)
