"""Enrolment against a live SBS with real TPMs: who does not get in, and what a replaced key is worth."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import replace

import pytest
from agent_site import VM, Agent, Built, Guest, Site
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tpm2_pytss.types import TPM2B_ECC_PARAMETER, TPM2B_PUBLIC

from cafe_lib import errors
from cafe_lib.wire import keys
from cafe_lib.wire.messages import EnrolmentChallenge, EnrolmentProof, EnrolmentRequest, EnrolmentResult
from hypervisor_agent.enrolment import EnrolmentPlan, ek_digest, enrol
from hypervisor_agent.state import StateDirectory
from hypervisor_agent.tpm.esapi import EsapiTpm
from hypervisor_agent.tpm.port import AttestationKey

REFUSED = 9


@pytest.fixture
def second(swtpm: object) -> EsapiTpm:
    """Give another TPM than the one of the site's host."""
    return EsapiTpm(swtpm.tcti)  # type: ignore[attr-defined] # SoftwareTpm of the conftest


class Applicant:
    """Enrols step by step, with one step done wrongly."""

    def __init__(self, site: Site, tpm: EsapiTpm, name: str) -> None:
        self.site, self.tpm, self.ak = site, tpm, tpm.create_ak()
        self.key = Ed25519PrivateKey.generate()
        public = self.key.public_key().public_bytes_raw()
        self.request = EnrolmentRequest(name, tpm.endorsement_public(), self.ak.public, public, b"n" * 32)

    def approve(self) -> None:
        digest = ek_digest(self.request.ek_public).hex()
        self.site.client("operator").approve_host({"name": self.request.name, "ek_digest": digest})

    def challenge(self) -> EnrolmentChallenge:
        return EnrolmentChallenge.parse(self.site.admin.enrol(self.request.encode()))

    def prove(
        self, challenge: EnrolmentChallenge, secret: bytes, key: Ed25519PrivateKey | None = None
    ) -> bytes:
        data = self.request.encode()
        proof = EnrolmentProof(
            challenge.enrolment_id,
            keys.enrolment_proof(secret, data),
            (key or self.key).sign(keys.enrolment_statement(data)),
        )
        return self.site.admin.activate(challenge.enrolment_id, proof.encode())

    def activate(self, challenge: EnrolmentChallenge, ak: AttestationKey | None = None) -> bytes:
        return self.tpm.activate_credential(
            ak or self.ak, challenge.credential_blob, challenge.encrypted_secret
        )


@pytest.mark.case("A18")
def test_a_tpm_that_nobody_approved_does_not_enrol(site: Site, second: EsapiTpm) -> None:
    for name in ("host-1", "host-2"):
        with pytest.raises(errors.ForbiddenError):
            Applicant(site, second, name).challenge()


@pytest.mark.case("A18")
def test_a_name_that_is_taken_is_not_taken_over(site: Site, second: EsapiTpm) -> None:
    with pytest.raises(errors.ConflictError):
        Applicant(site, second, "host-1").approve()


@pytest.mark.case("A12")
def test_a_key_made_outside_the_tpm_is_not_activated(site: Site, second: EsapiTpm) -> None:
    applicant = Applicant(site, second, "host-a12")
    applicant.approve()
    public, _ = TPM2B_PUBLIC.unmarshal(applicant.ak.public)
    numbers = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    public.publicArea.unique.ecc.x = TPM2B_ECC_PARAMETER(numbers.x.to_bytes(32, "big"))
    public.publicArea.unique.ecc.y = TPM2B_ECC_PARAMETER(numbers.y.to_bytes(32, "big"))
    applicant.request = replace(applicant.request, ak_public=bytes(public.marshal()))
    challenge = applicant.challenge()
    with pytest.raises(errors.TpmError):
        applicant.activate(challenge)
    with pytest.raises(errors.SignatureError):
        applicant.prove(challenge, secrets.token_bytes(32))


@pytest.mark.case("A14")
def test_an_activation_secret_is_good_for_one_request_and_once(site: Site, second: EsapiTpm) -> None:
    applicant = Applicant(site, second, "host-a14")
    applicant.approve()
    challenge = applicant.challenge()
    secret = applicant.activate(challenge)
    asked = applicant.request
    applicant.request = replace(asked, ak_public=second.create_ak().public)
    with pytest.raises(errors.SignatureError):
        applicant.prove(challenge, secret)
    applicant.request = asked
    with pytest.raises(errors.SignatureError):
        applicant.prove(challenge, secret, Ed25519PrivateKey.generate())
    result = EnrolmentResult.open(secret, applicant.prove(challenge, secret))
    assert result.sbs_root.hex() == site.made["sbs_root"]
    with pytest.raises(errors.NotFoundError):
        applicant.prove(challenge, secret)


def test_an_sbs_with_another_root_key_is_refused(site: Site, second: EsapiTpm) -> None:
    Applicant(site, second, "host-root").approve()
    state = StateDirectory(site.folder / "other-agent")
    plan = EnrolmentPlan("http://127.0.0.1", b"r" * 32, "host-root", "")
    with pytest.raises(errors.DigestError):
        enrol(plan, second, site.admin, state)
    with pytest.raises(errors.HostError):
        state.enrolment()


@pytest.mark.case("A13")
def test_a_replaced_attestation_key_is_worth_nothing(site: Site, probe: Built) -> None:
    def call(agent: Agent) -> tuple[int, int]:
        guest = Guest(probe.program, agent.sockets[VM])
        try:
            return guest.call("echo")
        finally:
            guest.end()

    site.license(probe)
    state = site.folder / "agent"
    shutil.copy2(state / "ak.json", site.folder / "old-ak.json")
    site.enrol_again()
    with site.running_agent("auto") as agent:
        assert call(agent) == (7, 0)
    shutil.copy2(site.folder / "old-ak.json", state / "ak.json")
    with site.running_agent("auto") as agent:
        assert call(agent) == (-1, REFUSED)
