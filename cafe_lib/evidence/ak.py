"""What an attestation key and an endorsement key must be, from their public areas alone (Part 2, 8.3)."""

from __future__ import annotations

from typing import Final, NoReturn

from cafe_lib.errors import MalformedError, QuoteError
from cafe_lib.evidence import tpm
from cafe_lib.evidence.publickey import CURVES, ecc_key, rsa_key

FIXED_TPM: Final = 1 << 1
ST_CLEAR: Final = 1 << 2
FIXED_PARENT: Final = 1 << 4
SENSITIVE_DATA_ORIGIN: Final = 1 << 5
USER_WITH_AUTH: Final = 1 << 6
ADMIN_WITH_POLICY: Final = 1 << 7
NO_DA: Final = 1 << 10
RESTRICTED: Final = 1 << 16
DECRYPT: Final = 1 << 17
SIGN: Final = 1 << 18

_OPTIONAL: Final = USER_WITH_AUTH | ADMIN_WITH_POLICY | NO_DA
_BORN_INSIDE: Final = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN
_AK_NEEDS: Final = _BORN_INSIDE | RESTRICTED | SIGN
_EK_NEEDS: Final = _BORN_INSIDE | RESTRICTED | DECRYPT
_STRONG_HASHES: Final = (tpm.ALG_SHA256, tpm.ALG_SHA384, tpm.ALG_SHA512)
_RSA_BITS: Final = (2048, 3072, 4096)
_AES_BITS: Final = (128, 256)


def verify_ak_attributes(public: tpm.Public) -> tpm.Public:
    """Return `public` if it is a restricted signing key made in the TPM, which never leaves it.

    The TPM signs with such a key only what it has made itself. Raises QuoteError (step "ak").
    """
    _verify_attributes(public, _AK_NEEDS, "ak")
    if public.symmetric is not None:
        _refuse("a signing key with a symmetric algorithm", "ak")
    schemes = (tpm.ALG_RSASSA, tpm.ALG_RSAPSS) if public.kind == tpm.ALG_RSA else (tpm.ALG_ECDSA,)
    if public.scheme not in schemes or public.scheme_hash not in _STRONG_HASHES:
        _refuse("a signature scheme or hash that is not allowed", "ak")
    _verify_key(public, "ak")
    return public


def verify_ek_public(public: tpm.Public) -> tpm.Public:
    """Return `public` if it is a restricted decryption key made in the TPM; raises QuoteError (step "ek")."""
    _verify_attributes(public, _EK_NEEDS, "ek")
    if public.symmetric is None or public.symmetric[1] not in _AES_BITS or public.symmetric[2] != tpm.ALG_CFB:
        _refuse("not a storage key with AES in CFB mode", "ek")
    if public.scheme != tpm.ALG_NULL:
        _refuse("a storage key with a scheme of its own", "ek")
    _verify_key(public, "ek")
    return public


def _verify_attributes(public: tpm.Public, needs: int, step: str) -> None:
    if public.attributes & needs != needs:
        _refuse("a needed attribute is not set", step)
    if public.attributes & ~(needs | _OPTIONAL):
        _refuse("an attribute is set that must not be", step)
    if public.name_alg not in _STRONG_HASHES:
        _refuse("a weak name algorithm", step)


def _verify_key(public: tpm.Public, step: str) -> None:
    if public.kind == tpm.ALG_RSA:
        if public.bits not in _RSA_BITS or public.exponent != tpm.DEFAULT_EXPONENT:
            _refuse("an RSA key of a size or exponent that is not allowed", step)
    elif public.curve not in CURVES:
        _refuse("an ECC key on a curve that is not allowed", step)
    try:
        rsa_key(public) if public.kind == tpm.ALG_RSA else ecc_key(public)
    except MalformedError as error:
        raise QuoteError(error.detail, step=step) from error


def _refuse(detail: str, step: str) -> NoReturn:
    raise QuoteError(detail, step=step)
