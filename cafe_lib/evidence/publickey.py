"""From TPM public areas to names, fingerprints and keys of `cryptography`."""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurve,
    EllipticCurvePublicKey,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from cafe_lib.errors import MalformedError
from cafe_lib.evidence import tpm

CURVES: Final[dict[int, EllipticCurve]] = {tpm.CURVE_P256: SECP256R1(), tpm.CURVE_P384: SECP384R1()}
HASHES: Final[dict[int, hashes.HashAlgorithm]] = {
    tpm.ALG_SHA1: hashes.SHA1(),  # noqa: S303  named so that a policy may allow it
    tpm.ALG_SHA256: hashes.SHA256(),
    tpm.ALG_SHA384: hashes.SHA384(),
    tpm.ALG_SHA512: hashes.SHA512(),
}


def name_of(public: tpm.Public) -> bytes:
    """Return the object's name: its name algorithm, and that digest of its TPMT_PUBLIC (Part 1, 16)."""
    digest = hashlib.new(tpm.HASH_NAMES[public.name_alg], public.raw).digest()
    return public.name_alg.to_bytes(2, "big") + digest


def ek_fingerprint(public: tpm.Public) -> bytes:
    """Return SHA-256 of the TPMT_PUBLIC: what an operator compares and approves."""
    return hashlib.sha256(public.raw).digest()


def rsa_key(public: tpm.Public) -> RSAPublicKey:
    """Return the RSA key; raises MalformedError when it is none, or not of the size it says."""
    if public.kind != tpm.ALG_RSA:
        raise MalformedError("not an RSA key")
    modulus = int.from_bytes(public.unique[0], "big")
    if len(public.unique[0]) * 8 != public.bits or modulus.bit_length() != public.bits:
        raise MalformedError("an RSA key of another size than it says")
    try:
        return RSAPublicNumbers(public.exponent, modulus).public_key()
    except ValueError as error:
        raise MalformedError("not an RSA public key") from error


def ecc_key(public: tpm.Public) -> EllipticCurvePublicKey:
    """Return the ECC key; raises MalformedError when it is none, or its point is not on its curve."""
    curve = CURVES.get(public.curve)
    if public.kind != tpm.ALG_ECC or curve is None:
        raise MalformedError("not an ECC key on a known curve")
    x, y = (int.from_bytes(part, "big") for part in public.unique)
    try:
        return EllipticCurvePublicNumbers(x, y, curve).public_key()
    except ValueError as error:
        raise MalformedError("a point that is not on its curve") from error
