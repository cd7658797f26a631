"""Against a real TPM 2.0 implementation: credentials it opens or refuses, and quotes it makes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tpm2_pytss.TSS2_Exception import TSS2_Exception

from cafe_lib.errors import LimitError, QuoteError
from cafe_lib.evidence import tpm
from cafe_lib.evidence.credential import make_credential
from cafe_lib.evidence.policy import verify_clock
from cafe_lib.evidence.publickey import name_of
from cafe_lib.evidence.quote import QuoteEvidence, verify_quote

if TYPE_CHECKING:
    from conftest import RealTpm

SECRET = b"activation secret of 32 bytes..."
SELECTION = ((tpm.ALG_SHA256, (0, 7, 16)),)
VECTOR = json.loads((Path(__file__).parents[1] / "vectors/tpm/quote.json").read_text())


@pytest.mark.parametrize("ek", ["ek_rsa", "ek_ecc"])
def test_credential_is_opened(real_tpm: RealTpm, ek: str) -> None:
    blob, seed = make_credential(tpm.parse_public(real_tpm.keys[ek]), real_tpm.keys["ak_name"], SECRET)
    assert real_tpm.activate(ek, "ak", blob, seed) == SECRET


@pytest.mark.parametrize("ek", ["ek_rsa", "ek_ecc"])
@pytest.mark.parametrize("length", [1, 31, 32])
def test_secret_of_any_length(real_tpm: RealTpm, ek: str, length: int) -> None:
    blob, seed = make_credential(
        tpm.parse_public(real_tpm.keys[ek]), real_tpm.keys["ak_name"], SECRET[:length]
    )
    assert real_tpm.activate(ek, "ak", blob, seed) == SECRET[:length]


@pytest.mark.case("A12", "A14")
@pytest.mark.parametrize("ek", ["ek_rsa", "ek_ecc"])
def test_credential_for_another_ak_is_refused(real_tpm: RealTpm, ek: str) -> None:
    blob, seed = make_credential(tpm.parse_public(real_tpm.keys[ek]), real_tpm.keys["ak_name"], SECRET)
    with pytest.raises(TSS2_Exception):
        real_tpm.activate(ek, "other_ak", blob, seed)


@pytest.mark.case("A12", "A14")
def test_credential_for_a_key_outside_the_tpm_is_refused(real_tpm: RealTpm) -> None:
    outside = b"\0\x0b" + hashlib.sha256(b"a key in a file").digest()
    blob, seed = make_credential(tpm.parse_public(real_tpm.keys["ek_rsa"]), outside, SECRET)
    with pytest.raises(TSS2_Exception):
        real_tpm.activate("ek_rsa", "ak", blob, seed)


@pytest.mark.case("A14")
def test_parts_of_two_credentials_do_not_mix(real_tpm: RealTpm) -> None:
    ek, name = tpm.parse_public(real_tpm.keys["ek_rsa"]), real_tpm.keys["ak_name"]
    first, second = make_credential(ek, name, SECRET), make_credential(ek, name, SECRET)
    assert first != second
    with pytest.raises(TSS2_Exception):
        real_tpm.activate("ek_rsa", "ak", first[0], second[1])


def test_bounds_of_a_secret(real_tpm: RealTpm) -> None:
    ek = tpm.parse_public(real_tpm.keys["ek_rsa"])
    for secret in (b"", b"s" * 33):
        with pytest.raises(LimitError):
            make_credential(ek, real_tpm.keys["ak_name"], secret)
    with pytest.raises(QuoteError):
        make_credential(tpm.parse_public(real_tpm.keys["ak"]), real_tpm.keys["ak_name"], SECRET)


# ------------------------------------------------------------------ quotes


@pytest.fixture
def evidence(real_tpm: RealTpm) -> QuoteEvidence:
    return QuoteEvidence(*real_tpm.quote("ak", b"q" * 32, SELECTION))


@pytest.mark.parametrize("key", ["ak", "other_ak"])
def test_quote(real_tpm: RealTpm, key: str) -> None:
    evidence = QuoteEvidence(*real_tpm.quote(key, b"q" * 32, SELECTION))
    quote = verify_quote(evidence, tpm.parse_public(real_tpm.keys[key]), b"q" * 32, SELECTION)
    assert [place for place, _ in quote.pcrs.items()] == [(tpm.ALG_SHA256, index) for index in (0, 7, 16)]
    assert quote.safe


@pytest.mark.case("A02")
def test_several_banks(real_tpm: RealTpm) -> None:
    selection = ((tpm.ALG_SHA256, (0, 23)), (tpm.ALG_SHA384, (16,)))
    evidence = QuoteEvidence(*real_tpm.quote("ak", b"q" * 32, selection))
    public = tpm.parse_public(real_tpm.keys["ak"])
    assert len(verify_quote(evidence, public, b"q" * 32, selection).pcrs) == 3
    with pytest.raises(QuoteError):
        verify_quote(evidence, public, b"q" * 32, selection[::-1])


@pytest.mark.case("A01")
def test_real_quote_over_pcr_16_is_not_one_over_pcr_0(real_tpm: RealTpm) -> None:
    """PCR 16 anyone may reset and extend: its quote must never stand for PCR 0."""
    quoted, asked = ((tpm.ALG_SHA256, (16,)),), ((tpm.ALG_SHA256, (0,)),)
    attest, signature, values = real_tpm.quote("ak", b"q" * 32, quoted)
    relabelled = tuple((alg, 0, digest) for alg, _, digest in values)
    for given in (values, relabelled):
        with pytest.raises(QuoteError):
            verify_quote(
                QuoteEvidence(attest, signature, given),
                tpm.parse_public(real_tpm.keys["ak"]),
                b"q" * 32,
                asked,
            )


@pytest.mark.case("A19", "A23")
def test_real_quote_for_another_nonce_or_by_another_key(real_tpm: RealTpm, evidence: QuoteEvidence) -> None:
    public, other = (tpm.parse_public(real_tpm.keys[name]) for name in ("ak", "other_ak"))
    with pytest.raises(QuoteError):
        verify_quote(evidence, public, b"Q" * 32, SELECTION)
    with pytest.raises(QuoteError):
        verify_quote(evidence, other, b"q" * 32, SELECTION)


@pytest.mark.case("A06")
def test_real_attestations_that_are_no_quotes(real_tpm: RealTpm, evidence: QuoteEvidence) -> None:
    for attest, signature in (real_tpm.certify(b"q" * 32), real_tpm.attest_time(b"q" * 32)):
        with pytest.raises(QuoteError) as caught:
            verify_quote(
                QuoteEvidence(attest, signature, evidence.pcr_values),
                tpm.parse_public(real_tpm.keys["ak"]),
                b"q" * 32,
                SELECTION,
            )
        assert caught.value.step == "structure"


@pytest.mark.case("A25")
def test_clock_goes_on(real_tpm: RealTpm) -> None:
    public = tpm.parse_public(real_tpm.keys["ak"])
    quotes = [
        verify_quote(QuoteEvidence(*real_tpm.quote("ak", b"q" * 32, SELECTION)), public, b"q" * 32, SELECTION)
        for _ in range(2)
    ]
    verify_clock(quotes[0], quotes[1])
    with pytest.raises(QuoteError):
        verify_clock(dataclasses.replace(quotes[1], clock=quotes[1].clock + 1), quotes[0])


@pytest.mark.parametrize("name", VECTOR)
def test_recorded_quote(name: str) -> None:
    vector = VECTOR[name]
    values = tuple((alg, index, bytes.fromhex(digest)) for alg, index, digest in vector["pcr_values"])
    evidence = QuoteEvidence(bytes.fromhex(vector["attest"]), bytes.fromhex(vector["signature"]), values)
    selection = tuple((alg, tuple(indices)) for alg, indices in vector["selection"])
    public = tpm.parse_public(bytes.fromhex(vector["ak_public"]))
    quote = verify_quote(evidence, public, bytes.fromhex(vector["qualifying_data"]), selection)
    assert (quote.reset_count, quote.clock) == (vector["reset_count"], vector["clock"])
    assert name_of(public).hex() == vector["ak_name"]
