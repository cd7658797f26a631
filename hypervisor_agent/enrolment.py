"""Enrolment: the agent shows that its attestation key lives in the TPM whose EK the operator approved."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cafe_lib.errors import DigestError
from cafe_lib.wire import keys, limits
from cafe_lib.wire.messages import EnrolmentChallenge, EnrolmentProof, EnrolmentRequest, EnrolmentResult
from hypervisor_agent.sbs import Sbs
from hypervisor_agent.state import Enrolment, StateDirectory
from hypervisor_agent.tpm.port import AttestationKey, Tpm

_TPM2B_SIZE_BYTES = 2


def ek_digest(ek_public: bytes) -> bytes:
    """Return what an operator approves: SHA-256 of the EK's TPMT_PUBLIC, the digest inside its TPM name."""
    return hashlib.sha256(ek_public[_TPM2B_SIZE_BYTES:]).digest()


@dataclass(frozen=True, slots=True)
class EnrolmentPlan:
    """Where to enrol, under which name, and which SBS root key the operator expects there."""

    sbs_url: str
    sbs_root: bytes
    name: str
    tcti: str


def enrol(plan: EnrolmentPlan, tpm: Tpm, sbs: Sbs, state: StateDirectory) -> Enrolment:
    """Make keys, activate the credential, keep the result.

    :raises DigestError: the SBS is not the one whose root key the operator gave.
    :raises SignatureError: the answer was not made with the activation secret.
    :raises TpmError: the TPM refuses; also when the challenge was made for another TPM or key.
    """
    state.create()
    ak, host_key = tpm.create_ak(), state.host_key()
    request = _request(plan.name, tpm, ak, host_key).encode()
    challenge = EnrolmentChallenge.parse(sbs.enrol(request))
    secret = tpm.activate_credential(ak, challenge.credential_blob, challenge.encrypted_secret)
    proof = EnrolmentProof(
        challenge.enrolment_id,
        keys.enrolment_proof(secret, request),
        host_key.sign(keys.enrolment_statement(request)),
    )
    answer = sbs.activate(challenge.enrolment_id, proof.encode())
    result = EnrolmentResult.open(secret, answer)
    if not hmac.compare_digest(result.sbs_root, plan.sbs_root):
        raise DigestError(
            "the SBS has another root key than the one given", hint="ask its operator for `cafe-sbs` keys"
        )
    enrolment = Enrolment(plan.sbs_url, plan.sbs_root, result.host_id, plan.name, plan.tcti)
    state.store_attestation_key(ak)
    state.store_enrolment(enrolment)
    return enrolment


def _request(name: str, tpm: Tpm, ak: AttestationKey, host_key: Ed25519PrivateKey) -> EnrolmentRequest:
    return EnrolmentRequest(
        name,
        tpm.endorsement_public(),
        ak.public,
        host_key.public_key().public_bytes_raw(),
        secrets.token_bytes(limits.NONCE_BYTES),
    )
