"""Sessions: keys agreed, one nonce quoted, one verdict (deployment steps 3 to 8). Pure.

States: offered -> attested -> ended; offered -> refused; offered -> ended. Nothing leads back.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cafe_lib.errors import SessionError
from cafe_lib.evidence import tpm
from cafe_lib.evidence.policy import ClockState, Policy, VerifiedPolicy, verify_clock
from cafe_lib.evidence.quote import QuoteEvidence, VerifiedQuote, verify_quote
from cafe_lib.wire import codec, keys, limits
from cafe_lib.wire.messages import Evidence, SessionOffer, SessionRequest, choose_suite

OFFERED, ATTESTED, REFUSED, ENDED = "offered", "attested", "refused", "ended"
_MOVES: Final = {(OFFERED, ATTESTED), (OFFERED, REFUSED), (OFFERED, ENDED), (ATTESTED, ENDED)}


def move(state: str, to: str) -> str:
    """Return the new state; raises SessionError for a step that a session may not take."""
    if (state, to) not in _MOVES:
        raise SessionError(f"a session that is {state} cannot become {to}")
    return to


@dataclass(frozen=True, slots=True)
class OfferMaterial:
    """What makes one offer: fresh id, nonce and secret; and the SBS's identity."""

    session_id: bytes
    nonce: bytes
    secret: bytes = field(repr=False)
    root_public: bytes
    signing_key: Ed25519PrivateKey = field(repr=False)
    certificate: bytes


@dataclass(frozen=True, slots=True)
class Offer:
    """The signed SessionOffer, and the hash of all that was said so far."""

    message: bytes
    transcript: bytes


def make_offer(
    data: bytes,
    request: SessionRequest,
    material: OfferMaterial,
    selection: tpm.PcrSelection,
    expires_in: int,
) -> Offer:
    """Answer a verified request, which came as `data`; raises VersionError or MalformedError."""
    info = keys.session_secret_info(data, material.session_id)
    message = SessionOffer(
        material.session_id,
        material.nonce,
        selection,
        keys.seal_secret(request.kem_public, material.secret, info),
        choose_suite(request.suites),
        expires_in,
        material.certificate,
    ).sign(material.signing_key)
    return Offer(message, keys.transcript_hash(data, message, request.host_id, material.root_public))


def encode_selection(selection: tpm.PcrSelection) -> bytes:
    """Encode for the store."""
    return codec.encode([[bank, list(indices)] for bank, indices in selection])


def parse_selection(data: bytes) -> tpm.PcrSelection:
    """Decode what `encode_selection` made; raises MalformedError."""
    value = codec.decode(data, limits.MAX_MESSAGE_BYTES)
    if not isinstance(value, list):
        raise SessionError("a stored PCR selection is unusable")
    return tuple((int(bank), tuple(int(index) for index in indices)) for bank, indices in value)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a session asked its host to quote, and under which key and rules the answer is judged."""

    session_id: bytes
    qualifying_data: bytes
    selection: tpm.PcrSelection
    ak_public: bytes
    policy: Policy
    previous: ClockState | None


@dataclass(frozen=True, slots=True)
class VerifiedEvidence:
    """The quote is genuine, fresh and this session's, and meets the policy."""

    quote: VerifiedQuote
    policy: VerifiedPolicy


def verify_evidence(evidence: Evidence, asked: Asked) -> VerifiedEvidence:
    """Verify evidence whose MAC was checked; raises SessionError, QuoteError or PolicyError."""
    # 1. it is this session's
    if not hmac.compare_digest(evidence.session_id, asked.session_id):
        raise SessionError("evidence of another session")
    # 2. to 9. the quote: key, structure, scheme, signature, qualifying data, selection, values, digest
    quote = verify_quote(
        QuoteEvidence(evidence.attest, evidence.signature, evidence.pcr_values),
        tpm.parse_public(asked.ak_public),
        asked.qualifying_data,
        asked.selection,
        asked.policy.quote_limits(),
    )
    # 10. the TPM's time has not gone back since it was last seen
    verify_clock(asked.previous, quote)
    # 11. the PCR values are those the policy names
    return VerifiedEvidence(quote, asked.policy.verify(quote))
