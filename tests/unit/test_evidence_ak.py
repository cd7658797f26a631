"""What may serve as an attestation or endorsement key: attributes, algorithms, and public areas that lie."""

from __future__ import annotations

import dataclasses
import struct
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cafe_lib.errors import LimitError, MalformedError, QuoteError
from cafe_lib.evidence import ak, tpm
from cafe_lib.evidence.publickey import ecc_key, ek_fingerprint, name_of, rsa_key

if TYPE_CHECKING:
    from conftest import Forge, SoftwareKey

EXTERNAL = 1 << 12  # reserved bits
NEEDED = {
    "fixedTPM": ak.FIXED_TPM,
    "fixedParent": ak.FIXED_PARENT,
    "sensitiveDataOrigin": ak.SENSITIVE_DATA_ORIGIN,
    "restricted": ak.RESTRICTED,
    "sign": ak.SIGN,
}
FORBIDDEN = {
    "decrypt": ak.DECRYPT,
    "encryptedDuplication": 1 << 11,
    "stClear": ak.ST_CLEAR,
    "x509sign": 1 << 19,
    "reserved bit 0": 1,
    "reserved bit 12": 1 << 12,
    "reserved bit 31": 1 << 31,
}


def test_right_keys(forge: Forge) -> None:
    for key in (forge.key, forge.rsa_key):
        assert ak.verify_ak_attributes(key.public) == key.public
    assert ecc_key(forge.key.public).public_numbers() == forge.key.private.public_key().public_numbers()
    assert (
        rsa_key(forge.rsa_key.public).public_numbers() == forge.rsa_key.private.public_key().public_numbers()
    )


@pytest.mark.case("A11", "A12")
@pytest.mark.parametrize("bit", NEEDED.values(), ids=NEEDED.keys())
def test_attribute_missing(forge: Forge, bit: int) -> None:
    _expect_refusal(dataclasses.replace(forge.key, attributes=forge.key.attributes & ~bit))


@pytest.mark.case("A11")
@pytest.mark.parametrize("bit", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_attribute_too_many(forge: Forge, bit: int) -> None:
    _expect_refusal(dataclasses.replace(forge.key, attributes=forge.key.attributes | bit))


@pytest.mark.case("A09", "A10", "A11")
def test_algorithms(forge: Forge) -> None:
    _expect_refusal(dataclasses.replace(forge.key, name_alg=tpm.ALG_SHA1))
    _expect_refusal(dataclasses.replace(forge.key, hash_alg=tpm.ALG_SHA1))
    _expect_refusal(dataclasses.replace(forge.key, hash_alg=0x0012))
    _expect_refusal(dataclasses.replace(forge.key, scheme=tpm.ALG_RSASSA))
    _expect_refusal(dataclasses.replace(forge.rsa_key, scheme=tpm.ALG_ECDSA))
    _expect_refusal(dataclasses.replace(forge.rsa_key, scheme=tpm.ALG_OAEP))
    _expect_refusal(dataclasses.replace(forge.key, private=ec.generate_private_key(ec.SECP224R1())))
    _expect_refusal(dataclasses.replace(forge.key, private=ec.generate_private_key(ec.SECP521R1())))
    _expect_refusal(dataclasses.replace(forge.key, overrides={"curve": 0x0010}))
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505  weak on purpose
    _expect_refusal(dataclasses.replace(forge.rsa_key, private=weak))
    _expect_refusal(dataclasses.replace(forge.rsa_key, private=weak, overrides={"bits": 2048}))
    _expect_refusal(dataclasses.replace(forge.rsa_key, overrides={"exponent": 3}))
    _expect_refusal(dataclasses.replace(forge.rsa_key, overrides={"bits": 3072}))


@pytest.mark.case("A10")
def test_point_off_the_curve(forge: Forge) -> None:
    _expect_refusal(dataclasses.replace(forge.key, overrides={"x": 5}))
    _expect_refusal(dataclasses.replace(forge.key, overrides={"x": 2**256 - 1}))


def test_an_ak_is_no_ek_and_the_reverse(forge: Forge, tpm_keys: dict[str, bytes]) -> None:
    with pytest.raises(QuoteError) as caught:
        ak.verify_ek_public(forge.key.public)
    assert caught.value.step == "ek"
    for name in ("ek_rsa", "ek_ecc"):
        public = tpm.parse_public(tpm_keys[name])
        assert ak.verify_ek_public(public) is public
        with pytest.raises(QuoteError):
            ak.verify_ak_attributes(public)


def test_names(forge: Forge, tpm_keys: dict[str, bytes]) -> None:
    public = tpm.parse_public(tpm_keys["ak"])
    assert name_of(public) == tpm_keys["ak_name"]
    assert len(ek_fingerprint(tpm.parse_public(tpm_keys["ek_rsa"]))) == 32
    assert name_of(forge.key.public) != name_of(
        dataclasses.replace(forge.key, name_alg=tpm.ALG_SHA384).public
    )


def test_keys_of_another_kind(forge: Forge) -> None:
    with pytest.raises(MalformedError):
        rsa_key(forge.key.public)
    with pytest.raises(MalformedError):
        ecc_key(forge.rsa_key.public)


@pytest.mark.case("A07")
def test_public_cut_padded_or_with_a_lying_size(forge: Forge) -> None:
    whole = forge.key.public_bytes()
    for end in range(len(whole)):
        with pytest.raises(MalformedError):
            tpm.parse_public(whole[:end])
        inner = whole[2:end]
        with pytest.raises(MalformedError):
            tpm.parse_public(struct.pack(">H", len(inner)) + inner)
    padded = whole[2:] + b"\0"
    for bad in (whole + b"\0", struct.pack(">H", len(padded)) + padded, b"\xff\xff" + whole[2:]):
        with pytest.raises(MalformedError):
            tpm.parse_public(bad)
    with pytest.raises(LimitError):
        tpm.parse_public(b"\xff" * 2000)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        pytest.param(2, 0x0008, id="keyed hash"),
        pytest.param(2, 0x0025, id="symmetric cipher"),
        pytest.param(4, 0x0010, id="no name algorithm"),
        pytest.param(12, 0x0013, id="SM4"),
        pytest.param(14, 0x001A, id="ECDAA"),
    ],
)
def test_public_of_another_type(forge: Forge, place: int, value: int) -> None:
    whole = forge.key.public_bytes()
    with pytest.raises(MalformedError):
        tpm.parse_public(whole[:place] + struct.pack(">H", value) + whole[place + 2 :])


def _expect_refusal(key: SoftwareKey) -> None:
    with pytest.raises(QuoteError) as caught:
        ak.verify_ak_attributes(key.public)
    assert caught.value.step == "ak"
