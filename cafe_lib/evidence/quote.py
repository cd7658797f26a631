"""The verification of a quote, as the list of steps in the protocol document. Nothing here does I/O."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from cafe_lib.errors import MalformedError, ProtocolError, QuoteError
from cafe_lib.evidence import tpm
from cafe_lib.evidence.ak import verify_ak_attributes
from cafe_lib.evidence.publickey import HASHES, ecc_key, rsa_key


@dataclass(frozen=True, slots=True)
class QuoteEvidence:
    """Raw TPMS_ATTEST and TPMT_SIGNATURE, and the PCR values the host says it has: (alg, index, digest)."""

    attest: bytes
    signature: bytes
    pcr_values: tuple[tuple[int, int, bytes], ...]


@dataclass(frozen=True, slots=True)
class QuoteLimits:
    """What a policy may loosen."""

    allow_sha1_bank: bool = False


@dataclass(frozen=True, slots=True)
class VerifiedQuote:
    """What the TPM has shown: `pcrs` by (TPM_ALG_ID, index); `clock` in milliseconds."""

    pcrs: dict[tuple[int, int], bytes]
    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware: int


STRICT = QuoteLimits()


def verify_quote(
    evidence: QuoteEvidence,
    ak: tpm.Public,
    qualifying_data: bytes,
    selection: tpm.PcrSelection,
    limits: QuoteLimits = STRICT,
) -> VerifiedQuote:
    """Verify a quote by an enrolled AK; raises QuoteError, whose `step` is the name given here.

    `qualifying_data` and `selection` are what this side asked for, in that order of banks.
    """
    with _step("ak"):  # 1. the key is one that signs only what the TPM has made
        verify_ak_attributes(ak)
    with _step("structure"):  # 2. a quote, with nothing cut off, left over or in another encoding
        attest = tpm.parse_attest(evidence.attest)
        signature = tpm.parse_signature(evidence.signature)
    with _step("scheme"):  # 3. the signature is of the scheme and hash of that key
        _verify_scheme(ak, signature)
    with _step("signature"):  # 4. it verifies over the bytes as they came
        _verify_signature(ak, signature, evidence.attest)
    with _step("qualifying data"):  # 5. it was made for this session and nonce
        if not hmac.compare_digest(attest.extra_data, qualifying_data):
            raise QuoteError("quoted for another session, nonce or channel")
    with _step("selection"):  # 6. it covers exactly the PCRs that were asked for
        _verify_selection(attest.selection, selection, limits)
    with _step("values"):  # 7. the values are those of the selection, each once
        values = _ordered_values(evidence.pcr_values, selection)
    with _step("digest"):  # 8. and their digest is the one signed
        digest = hashlib.new(tpm.HASH_NAMES[signature.hash_alg], b"".join(values.values())).digest()
        if not hmac.compare_digest(digest, attest.pcr_digest):
            raise QuoteError("the PCR values are not the ones that were signed")
    return VerifiedQuote(
        values, attest.clock, attest.reset_count, attest.restart_count, attest.safe, attest.firmware
    )


@contextmanager
def _step(name: str) -> Iterator[None]:
    try:
        yield
    except (QuoteError, ProtocolError) as error:
        raise QuoteError(error.detail, step=name) from error


def _verify_scheme(ak: tpm.Public, signature: tpm.Signature) -> None:
    if (signature.scheme, signature.hash_alg) != (ak.scheme, ak.scheme_hash):
        raise QuoteError("the signature's scheme or hash is not the key's")


def _verify_signature(ak: tpm.Public, signature: tpm.Signature, attest: bytes) -> None:
    algorithm = HASHES[signature.hash_alg]
    try:
        if signature.scheme == tpm.ALG_ECDSA:
            r, s = (int.from_bytes(part, "big") for part in signature.parts)
            ecc_key(ak).verify(encode_dss_signature(r, s), attest, ec.ECDSA(algorithm))
        elif signature.scheme == tpm.ALG_RSASSA:
            rsa_key(ak).verify(signature.parts[0], attest, padding.PKCS1v15(), algorithm)
        else:
            pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO)
            rsa_key(ak).verify(signature.parts[0], attest, pss, algorithm)
    except (InvalidSignature, ValueError) as error:
        raise QuoteError("the signature does not verify under the host's key") from error


def _verify_selection(signed: tpm.PcrSelection, asked: tpm.PcrSelection, limits: QuoteLimits) -> None:
    if not asked:
        raise QuoteError("no PCR was asked for")
    if signed != asked:
        raise QuoteError("other PCRs were quoted than asked for")
    if any(algorithm == tpm.ALG_SHA1 for algorithm, _ in signed) and not limits.allow_sha1_bank:
        raise QuoteError("a SHA-1 bank is not allowed")


def _ordered_values(
    given: tuple[tuple[int, int, bytes], ...], selection: tpm.PcrSelection
) -> dict[tuple[int, int], bytes]:
    """Return the values in the order of the selection, which is the order they were hashed in."""
    found = {(algorithm, index): digest for algorithm, index, digest in given}
    wanted = [(algorithm, index) for algorithm, indices in selection for index in indices]
    if len(found) != len(given) or set(found) != set(wanted):
        raise QuoteError("PCR values that are missing, doubled or not in the selection")
    if any(len(digest) != tpm.DIGEST_BYTES[algorithm] for (algorithm, _), digest in found.items()):
        raise MalformedError("a PCR value of another length than its bank's")
    return {place: found[place] for place in wanted}
