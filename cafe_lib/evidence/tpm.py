"""TPM 2.0 structures (TPM 2.0 Library, Part 2), parsed from bytes: no length is believed, none is left over.

Only what the protocol uses: TPMS_ATTEST of a quote, TPMT_SIGNATURE, TPM2B_PUBLIC of RSA and ECC keys.
Anything else is a MalformedError. Integers are big-endian; a TPM2B is a u16 size and that many bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cafe_lib.errors import LimitError, MalformedError
from cafe_lib.wire import limits

ALG_RSA: Final = 0x0001
ALG_SHA1: Final = 0x0004
ALG_AES: Final = 0x0006
ALG_SHA256: Final = 0x000B
ALG_SHA384: Final = 0x000C
ALG_SHA512: Final = 0x000D
ALG_NULL: Final = 0x0010
ALG_RSASSA: Final = 0x0014
ALG_RSAES: Final = 0x0015
ALG_RSAPSS: Final = 0x0016
ALG_OAEP: Final = 0x0017
ALG_ECDSA: Final = 0x0018
ALG_ECDH: Final = 0x0019
ALG_ECC: Final = 0x0023
ALG_CFB: Final = 0x0043

CURVE_P256: Final = 0x0003
CURVE_P384: Final = 0x0004
CURVE_P521: Final = 0x0005

HASH_NAMES: Final = {ALG_SHA1: "sha1", ALG_SHA256: "sha256", ALG_SHA384: "sha384", ALG_SHA512: "sha512"}
DIGEST_BYTES: Final = {ALG_SHA1: 20, ALG_SHA256: 32, ALG_SHA384: 48, ALG_SHA512: 64}

GENERATED: Final = b"\xffTCG"
ST_ATTEST_QUOTE: Final = 0x8018
PCR_SELECT_BYTES: Final = 3
DEFAULT_EXPONENT: Final = 65537

_MAX_NAME_BYTES: Final = 2 + 64
_MAX_EXTRA_BYTES: Final = 2 + 64
_MAX_KEY_BYTES: Final = 512
_MAX_POINT_BYTES: Final = 66
_SYMMETRIC_PARENT: Final = (ALG_AES,)

PcrSelection = tuple[tuple[int, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class Attest:
    """TPMS_ATTEST of a quote. `clock` is in milliseconds."""

    qualified_signer: bytes
    extra_data: bytes
    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware: int
    selection: PcrSelection
    pcr_digest: bytes


@dataclass(frozen=True, slots=True)
class Signature:
    """TPMT_SIGNATURE: `parts` is (signature,) for RSASSA and RSAPSS, (r, s) for ECDSA."""

    scheme: int
    hash_alg: int
    parts: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Public:
    """TPMT_PUBLIC of an RSA or ECC key; `raw` is its marshalled form, which its name covers.

    RSA: `bits` and `exponent`, `unique` is (modulus,). ECC: `curve`, `unique` is (x, y). `symmetric` is
    (algorithm, key bits, mode) of a storage key, else None.
    """

    raw: bytes
    kind: int
    name_alg: int
    attributes: int
    auth_policy: bytes
    symmetric: tuple[int, int, int] | None
    scheme: int
    scheme_hash: int
    bits: int
    exponent: int
    curve: int
    unique: tuple[bytes, ...]


class _Cursor:
    """Reads forward over bytes from outside."""

    def __init__(self, data: bytes, limit: int) -> None:
        if len(data) > limit:
            raise LimitError(f"a TPM structure of {len(data)} bytes, at most {limit}")
        self.data = data
        self.position = 0

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.data):
            raise MalformedError("a TPM structure is cut short")
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def uint(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def sized(self, most: int, least: int = 0) -> bytes:
        size = self.uint(2)
        if not least <= size <= most:
            raise MalformedError(f"a TPM2B of {size} bytes, {least} to {most} expected")
        return self.take(size)

    def end(self) -> None:
        if self.position != len(self.data):
            raise MalformedError("bytes after the end of a TPM structure")


def parse_attest(data: bytes) -> Attest:
    """Parse the TPMS_ATTEST of a quote (Part 2, 10.12.12); raises MalformedError or LimitError."""
    cursor = _Cursor(data, limits.MAX_TPM_ATTEST_BYTES)
    if cursor.take(4) != GENERATED:
        raise MalformedError("not made by a TPM: wrong magic")
    if cursor.uint(2) != ST_ATTEST_QUOTE:
        raise MalformedError("an attestation, but not a quote")
    signer = cursor.sized(_MAX_NAME_BYTES)
    extra = cursor.sized(_MAX_EXTRA_BYTES)
    clock, resets, restarts = cursor.uint(8), cursor.uint(4), cursor.uint(4)
    safe = cursor.uint(1)
    if safe > 1:
        raise MalformedError("a flag that is neither 0 nor 1")
    firmware = cursor.uint(8)
    selection = _selection(cursor)
    digest = cursor.sized(limits.MAX_PCR_DIGEST_BYTES)
    cursor.end()
    return Attest(signer, extra, clock, resets, restarts, bool(safe), firmware, selection, digest)


def _selection(cursor: _Cursor) -> PcrSelection:
    """TPML_PCR_SELECTION in its one form: each bank once, three bytes of bits, none of them empty."""
    count = cursor.uint(4)
    if count > limits.MAX_PCR_BANKS:
        raise LimitError(f"{count} PCR banks")
    banks: list[tuple[int, tuple[int, ...]]] = []
    for _ in range(count):
        algorithm = cursor.uint(2)
        if cursor.uint(1) != PCR_SELECT_BYTES:
            raise MalformedError("a PCR selection in another encoding")
        bits = int.from_bytes(cursor.take(PCR_SELECT_BYTES), "little")
        indices = tuple(index for index in range(8 * PCR_SELECT_BYTES) if bits >> index & 1)
        if algorithm not in HASH_NAMES or not indices:
            raise MalformedError("a PCR bank that is unknown or empty")
        if any(algorithm == other for other, _ in banks):
            raise MalformedError("a PCR bank twice")
        banks.append((algorithm, indices))
    return tuple(banks)


def parse_signature(data: bytes) -> Signature:
    """Parse a TPMT_SIGNATURE (Part 2, 11.3.4); raises MalformedError or LimitError."""
    cursor = _Cursor(data, limits.MAX_TPM_SIGNATURE_BYTES)
    scheme, hash_alg = cursor.uint(2), cursor.uint(2)
    if hash_alg not in HASH_NAMES:
        raise MalformedError("a signature with an unknown hash")
    if scheme in (ALG_RSASSA, ALG_RSAPSS):
        parts: tuple[bytes, ...] = (cursor.sized(_MAX_KEY_BYTES, least=1),)
    elif scheme == ALG_ECDSA:
        parts = (cursor.sized(_MAX_POINT_BYTES, least=1), cursor.sized(_MAX_POINT_BYTES, least=1))
    else:
        raise MalformedError("a signature of an unknown scheme")
    cursor.end()
    return Signature(scheme, hash_alg, parts)


def parse_public(data: bytes) -> Public:
    """Parse a TPM2B_PUBLIC (Part 2, 12.2.5) of an RSA or ECC key; raises MalformedError or LimitError."""
    outer = _Cursor(data, limits.MAX_TPM_PUBLIC_BYTES)
    raw = outer.sized(limits.MAX_TPM_PUBLIC_BYTES)
    outer.end()
    cursor = _Cursor(raw, limits.MAX_TPM_PUBLIC_BYTES)
    kind, name_alg = cursor.uint(2), cursor.uint(2)
    if kind not in (ALG_RSA, ALG_ECC) or name_alg not in HASH_NAMES:
        raise MalformedError("a public area of an unknown type or name algorithm")
    attributes = cursor.uint(4)
    auth_policy = cursor.sized(limits.MAX_PCR_DIGEST_BYTES)
    symmetric = _symmetric(cursor)
    scheme, scheme_hash = _scheme(cursor)
    bits = exponent = curve = 0
    if kind == ALG_RSA:
        bits, exponent = cursor.uint(2), cursor.uint(4) or DEFAULT_EXPONENT
        unique: tuple[bytes, ...] = (cursor.sized(_MAX_KEY_BYTES, least=1),)
    else:
        curve = cursor.uint(2)
        _scheme(cursor)  # the key derivation scheme, without meaning for the keys in use
        unique = (cursor.sized(_MAX_POINT_BYTES, least=1), cursor.sized(_MAX_POINT_BYTES, least=1))
    cursor.end()
    return Public(
        raw,
        kind,
        name_alg,
        attributes,
        auth_policy,
        symmetric,
        scheme,
        scheme_hash,
        bits,
        exponent,
        curve,
        unique,
    )


def _symmetric(cursor: _Cursor) -> tuple[int, int, int] | None:
    algorithm = cursor.uint(2)
    if algorithm == ALG_NULL:
        return None
    if algorithm not in _SYMMETRIC_PARENT:
        raise MalformedError("a symmetric algorithm other than AES")
    return algorithm, cursor.uint(2), cursor.uint(2)


def _scheme(cursor: _Cursor) -> tuple[int, int]:
    """Return (scheme, hash); RSAES and NULL have no hash, and no scheme of ours has more than a hash."""
    scheme = cursor.uint(2)
    if scheme in (ALG_NULL, ALG_RSAES):
        return scheme, ALG_NULL
    if scheme not in (ALG_RSASSA, ALG_RSAPSS, ALG_OAEP, ALG_ECDSA, ALG_ECDH):
        raise MalformedError("a key scheme the protocol does not use")
    return scheme, cursor.uint(2)
