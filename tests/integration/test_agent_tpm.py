"""The TPM adapter against a real swtpm."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_SE, TPMA_OBJECT
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.types import (
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMS_ATTEST,
    TPMT_SIGNATURE,
    TPMT_SYM_DEF,
)
from tpm2_pytss.utils import make_credential

from cafe_lib.errors import TpmError
from hypervisor_agent.tpm.esapi import EsapiTpm
from hypervisor_agent.tpm.port import AttestationKey
from hypervisor_agent.tpm.templates import EK_HANDLE, ek_template, is_default_ek

SHA256 = 0x0B
SELECTION = ((SHA256, (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 16)),)


class Software(Protocol):
    tcti: str


@pytest.fixture
def tpm(swtpm: Software) -> EsapiTpm:
    return EsapiTpm(swtpm.tcti)


def _public(data: bytes) -> TPM2B_PUBLIC:
    public, rest = TPM2B_PUBLIC.unmarshal(data)
    assert rest == len(data)
    return public


def test_the_endorsement_key_is_the_default_one_and_stays(tpm: EsapiTpm) -> None:
    first = tpm.endorsement_public()
    assert is_default_ek(_public(first))
    assert tpm.endorsement_public() == first


def test_a_persistent_endorsement_key_is_used(tpm: EsapiTpm, swtpm: Software) -> None:
    expected = tpm.endorsement_public()
    with ESAPI(swtpm.tcti) as esapi:
        handle, *_ = esapi.create_primary(TPM2B_SENSITIVE_CREATE(), ek_template(), ESYS_TR.ENDORSEMENT)
        esapi.evict_control(ESYS_TR.OWNER, handle, EK_HANDLE)
        esapi.flush_context(handle)
    assert tpm.endorsement_public() == expected
    assert tpm.create_ak().public != expected


@pytest.mark.case("A11")
def test_the_attestation_key_signs_only_what_the_tpm_made(tpm: EsapiTpm) -> None:
    attributes = _public(tpm.create_ak().public).publicArea.objectAttributes
    for needed in ("RESTRICTED", "FIXEDTPM", "FIXEDPARENT", "SENSITIVEDATAORIGIN", "SIGN_ENCRYPT"):
        assert attributes & getattr(TPMA_OBJECT, needed), needed
    assert not attributes & TPMA_OBJECT.DECRYPT


def test_a_quote_verifies_and_covers_the_values(tpm: EsapiTpm) -> None:
    ak = tpm.create_ak()
    quote = tpm.quote(ak, b"q" * 32, SELECTION)
    attest, _ = TPMS_ATTEST.unmarshal(quote.attest)
    assert bytes(attest.extraData) == b"q" * 32
    values = hashlib.sha256(b"".join(digest for _, _, digest in quote.pcr_values)).digest()
    assert bytes(attest.attested.quote.pcrDigest) == values
    assert [index for _, index, _ in quote.pcr_values] == list(SELECTION[0][1])
    point = _public(ak.public).publicArea.unique.ecc
    key = ec.EllipticCurvePublicNumbers(
        int.from_bytes(bytes(point.x)), int.from_bytes(bytes(point.y)), ec.SECP256R1()
    ).public_key()
    signature = TPMT_SIGNATURE.unmarshal(quote.signature)[0].signature.ecdsa
    encoded = utils.encode_dss_signature(
        int.from_bytes(bytes(signature.signatureR)), int.from_bytes(bytes(signature.signatureS))
    )
    key.verify(encoded, quote.attest, ec.ECDSA(hashes.SHA256()))


@pytest.mark.case("A14")
def test_a_credential_opens_for_the_key_it_was_made_for_only(tpm: EsapiTpm) -> None:
    ak, other = tpm.create_ak(), tpm.create_ak()
    blob, secret = make_credential(
        _public(tpm.endorsement_public()), b"s" * 32, _public(ak.public).get_name()
    )
    assert tpm.activate_credential(ak, blob.marshal(), secret.marshal()) == b"s" * 32
    with pytest.raises(TpmError):
        tpm.activate_credential(other, blob.marshal(), secret.marshal())


def test_an_extended_pcr_shows_in_the_next_quote(tpm: EsapiTpm) -> None:
    ak = tpm.create_ak()
    tpm.quote(ak, b"q" * 32, SELECTION)
    digest = hashlib.sha256(b"software").digest()
    tpm.extend_pcr(14, digest)
    values = {index: value for _, index, value in tpm.quote(ak, b"q" * 32, SELECTION).pcr_values}
    assert values[14] == hashlib.sha256(bytes(32) + digest).digest()
    assert tpm.read_pcrs(((SHA256, (14,)),)) == ((SHA256, 14, values[14]),)


def test_the_key_blob_works_after_a_reset(
    tpm: EsapiTpm, request: pytest.FixtureRequest, swtpm: Software
) -> None:
    ak = tpm.create_ak()
    tpm.quote(ak, b"q" * 32, SELECTION)
    restarted: Software = request.getfixturevalue("restarted_swtpm")
    assert restarted.tcti == swtpm.tcti
    assert TPMS_ATTEST.unmarshal(tpm.quote(ak, b"n" * 32, SELECTION).attest)[0].clockInfo.resetCount > 0
    assert EsapiTpm(swtpm.tcti).quote(ak, b"n" * 32, SELECTION).attest


def test_what_a_killed_agent_left_loaded_is_freed(swtpm: Software) -> None:
    with ESAPI(swtpm.tcti) as esapi:
        for _ in range(2):
            esapi.create_primary(TPM2B_SENSITIVE_CREATE(), ek_template(), ESYS_TR.ENDORSEMENT)
        esapi.start_auth_session(
            ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL), TPM2_ALG.SHA256
        )
    tpm = EsapiTpm(swtpm.tcti)
    assert tpm.quote(tpm.create_ak(), b"q" * 32, SELECTION).attest


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(lambda tpm, ak: tpm.quote(ak, b"q" * 32, ((SHA256, (24,)),)), id="PCR 24"),
        pytest.param(lambda tpm, ak: tpm.quote(ak, b"q" * 32, ((SHA256, (-1,)),)), id="negative PCR"),
        pytest.param(lambda tpm, ak: tpm.quote(ak, b"q" * 32, ((0x7777, (1,)),)), id="unknown bank"),
        pytest.param(lambda tpm, ak: tpm.quote(ak, b"q" * 999, SELECTION), id="long qualifying data"),
        pytest.param(
            lambda tpm, _: tpm.quote(AttestationKey(b"", b""), b"", SELECTION), id="empty key blobs"
        ),
        pytest.param(
            lambda tpm, ak: tpm.quote(AttestationKey(ak.public, bytes(128)), b"", SELECTION), id="zero blob"
        ),
        pytest.param(lambda tpm, ak: tpm.activate_credential(ak, b"", b""), id="empty credential"),
        pytest.param(
            lambda tpm, ak: tpm.prepare(AttestationKey(ak.public, ak.private[:-1] + b"x")),
            id="damaged key blob",
        ),
        pytest.param(
            lambda tpm, ak: tpm.activate_credential(ak, b"\xff" * 99, b"\xff" * 99), id="lying credential"
        ),
        pytest.param(lambda tpm, _: tpm.extend_pcr(99, bytes(32)), id="extend PCR 99"),
        pytest.param(lambda tpm, _: tpm.extend_pcr(16, b"short"), id="short digest"),
    ],
)
def test_what_the_tpm_refuses_is_a_typed_error(
    tpm: EsapiTpm, work: Callable[[EsapiTpm, AttestationKey], object]
) -> None:
    ak = tpm.create_ak()
    with pytest.raises(TpmError):
        work(tpm, ak)
    assert tpm.quote(ak, b"q" * 32, SELECTION).attest, "nothing was left loaded"


@pytest.mark.parametrize("tcti", ["swtpm:path=/nowhere", "device:/nowhere", "no-such-tcti:", "", "\0"])
def test_an_unreachable_tpm_is_a_typed_error(tcti: str) -> None:
    with pytest.raises(TpmError):
        EsapiTpm(tcti).endorsement_public()
