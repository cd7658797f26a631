"""Enrolment: a key in the TPM that the operator approved, shown by credential activation. Pure."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cafe_lib.errors import SignatureError
from cafe_lib.evidence import tpm
from cafe_lib.evidence.ak import verify_ak_attributes, verify_ek_public
from cafe_lib.evidence.credential import make_credential
from cafe_lib.evidence.publickey import ek_fingerprint, name_of
from cafe_lib.wire import keys
from cafe_lib.wire.messages import EnrolmentChallenge, EnrolmentProof, EnrolmentRequest, EnrolmentResult


@dataclass(frozen=True, slots=True)
class VerifiedRequest:
    """A request whose keys are of the right kind; `ek_digest` is what the operator approves."""

    data: bytes
    name: str
    ek: tpm.Public
    ak: tpm.Public
    ek_digest: bytes


@dataclass(frozen=True, slots=True)
class Activation:
    """What is sent now, what is compared later (a digest of the proof), and what is sent then."""

    challenge: bytes
    proof_digest: bytes = field(repr=False)
    result: bytes


@dataclass(frozen=True, slots=True)
class ActivationMaterial:
    """Fresh ids and 32 secret bytes."""

    enrolment_id: bytes
    host_id: bytes
    secret: bytes = field(repr=False)


def verify_request(data: bytes) -> VerifiedRequest:
    """Check what can be seen of the keys; raises ProtocolError or QuoteError (step "ek" or "ak")."""
    request = EnrolmentRequest.parse(data)
    ek = verify_ek_public(tpm.parse_public(request.ek_public))
    ak = verify_ak_attributes(tpm.parse_public(request.ak_public))
    return VerifiedRequest(data, request.name, ek, ak, ek_fingerprint(ek))


def begin(request: VerifiedRequest, material: ActivationMaterial, root_public: bytes) -> Activation:
    """Make the challenge: only the TPM with that EK, holding a key of that AK's name, gets the secret."""
    blob, encrypted = make_credential(request.ek, name_of(request.ak), material.secret)
    proof = keys.enrolment_proof(material.secret, request.data)
    return Activation(
        EnrolmentChallenge(material.enrolment_id, blob, encrypted).encode(),
        hashlib.sha256(proof).digest(),
        EnrolmentResult(material.host_id, root_public).seal(material.secret),
    )


def verify_proof(
    enrolment_id: bytes, request: bytes, proof_digest: bytes, message: EnrolmentProof
) -> EnrolmentRequest:
    """Check the answer to one challenge; raises SignatureError.

    The proof covers the whole request, so a secret got for one AK, host key or name is of no use for another.
    """
    if not hmac.compare_digest(message.enrolment_id, enrolment_id):
        raise SignatureError("a proof for another enrolment")
    if not hmac.compare_digest(hashlib.sha256(message.proof).digest(), proof_digest):
        raise SignatureError("the activation secret was not obtained for this key")
    asked = EnrolmentRequest.parse(request)
    try:
        key = Ed25519PublicKey.from_public_bytes(asked.host_key)
        key.verify(message.host_key_signature, keys.enrolment_statement(request))
    except (InvalidSignature, ValueError) as error:
        raise SignatureError("the host key did not sign the request") from error
    return asked
