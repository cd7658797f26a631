"""The verification of quotes: each step refuses what it is there for. What is forged is properly signed."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cafe_lib.errors import QuoteError
from cafe_lib.evidence import tpm
from cafe_lib.evidence.quote import QuoteEvidence, QuoteLimits, VerifiedQuote, verify_quote

if TYPE_CHECKING:
    from conftest import Forge

SHA1, SHA256, SHA384 = tpm.ALG_SHA1, tpm.ALG_SHA256, tpm.ALG_SHA384


def bank(algorithm: int, *indices: int, size: int = 3) -> bytes:
    bits = sum(1 << index for index in indices)
    return struct.pack(">HB", algorithm, size) + bits.to_bytes(size, "little")


def banks(*encoded: bytes, count: int | None = None) -> bytes:
    return struct.pack(">I", len(encoded) if count is None else count) + b"".join(encoded)


def check(forge: Forge, evidence: QuoteEvidence, **changes: object) -> VerifiedQuote:
    arguments = {
        "ak": forge.key.public,
        "qualifying_data": forge.qualifying_data,
        "selection": forge.selection,
    } | changes
    return verify_quote(evidence, **arguments)


def test_a_right_quote(forge: Forge) -> None:
    quote = check(forge, forge.evidence())
    assert quote.pcrs == {(alg, index): digest for alg, index, digest in forge.values}
    assert (quote.clock, quote.reset_count, quote.restart_count, quote.safe, quote.firmware) == (
        1000, 5, 6, True, 7,
    )  # fmt: skip


@pytest.mark.parametrize("scheme", [tpm.ALG_RSASSA, tpm.ALG_RSAPSS])
def test_a_right_rsa_quote(forge: Forge, scheme: int) -> None:
    key = dataclasses.replace(forge.rsa_key, scheme=scheme)
    assert check(forge, forge.evidence(key=key), ak=key.public).clock == 1000


def test_values_may_come_in_any_order(forge: Forge) -> None:
    quote = check(forge, forge.evidence(values=forge.values[::-1]))
    assert list(quote.pcrs) == [(SHA256, index) for index in (0, 7, 11)]


STRUCTURES = {
    "A05 wrong magic": {"magic": b"\xffTCH"},
    "A05 magic reversed": {"magic": b"GCT\xff"},
    "A06 certify": {"kind": 0x8017},
    "A06 creation": {"kind": 0x801A},
    "A06 time": {"kind": 0x8019},
    "A06 NV": {"kind": 0x8014},
    "A07 trailing byte": {"trailer": b"\0"},
    "A07 flag 2": {"clock": struct.pack(">QIIB", 1, 1, 1, 2)},
    "A07 digest of 65 bytes": {"digest": b"d" * 65},
    "A07 signer of 67 bytes": {"signer": b"s" * 67},
    "A04 bank twice": {"selection": banks(bank(SHA256, 0, 7, 11), bank(SHA256, 0, 7, 11))},
    "A04 bank in two parts": {"selection": banks(bank(SHA256, 0, 7), bank(SHA256, 11))},
    "A04 unknown bank": {"selection": banks(bank(0x0012, 0, 7, 11))},
    "A04 four-byte bits": {"selection": banks(bank(SHA256, 0, 7, 11, size=4))},
    "A04 two-byte bits": {"selection": banks(bank(SHA256, 0, 7, 11, size=2))},
    "A02 an empty bank beside": {"selection": banks(bank(SHA256, 0, 7, 11), bank(SHA384))},
    "A07 more banks said than there": {"selection": banks(bank(SHA256, 0, 7, 11), count=2)},
    "A07 2^32-1 banks": {"selection": banks(bank(SHA256, 0, 7, 11), count=2**32 - 1)},
}


@pytest.mark.case("A02", "A04", "A05", "A06", "A07")
@pytest.mark.parametrize("changes", STRUCTURES.values(), ids=STRUCTURES.keys())
def test_structure(forge: Forge, changes: dict[str, object]) -> None:
    _expect_refusal(forge, forge.evidence(forge.quote(**changes)), "structure")


@pytest.mark.case("A07")
def test_cut_anywhere(forge: Forge) -> None:
    whole = forge.evidence()
    for end in range(len(whole.attest)):
        attest = whole.attest[:end]
        _expect_refusal(forge, QuoteEvidence(attest, forge.key.sign(attest), whole.pcr_values), "structure")
    for end in range(len(whole.signature)):
        _expect_refusal(forge, dataclasses.replace(whole, signature=whole.signature[:end]), "structure")
    _expect_refusal(forge, dataclasses.replace(whole, signature=whole.signature + b"\0"), "structure")


@pytest.mark.case("A07")
@pytest.mark.parametrize("size", [0, 1, 31, 33, 0xFFFF])
def test_lying_sizes(forge: Forge, size: int) -> None:
    attest = forge.quote().marshal()
    place = 4 + 2 + 2 + 34  # the size of extraData
    assert attest[place : place + 2] == b"\0\x20"
    lie = attest[:place] + struct.pack(">H", size) + attest[place + 2 :]
    with pytest.raises(QuoteError):
        check(forge, QuoteEvidence(lie, forge.key.sign(lie), forge.values))


SELECTIONS = {
    "A01 PCR 16 as PCR 11": banks(bank(SHA256, 0, 7, 16)),
    "A02 nothing": banks(),
    "A02 one less": banks(bank(SHA256, 0, 7)),
    "A02 one more": banks(bank(SHA256, 0, 7, 11, 12)),
    "A04 another bank": banks(bank(SHA384, 0, 7, 11)),
    "A04 another bank beside": banks(bank(SHA256, 0, 7, 11), bank(SHA384, 0)),
    "A09 SHA-1 bank": banks(bank(SHA1, 0, 7, 11)),
}


@pytest.mark.case("A01", "A02", "A04", "A09")
@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS.keys())
def test_selection(forge: Forge, selection: bytes) -> None:
    _expect_refusal(forge, forge.evidence(forge.quote(selection=selection)), "selection")


@pytest.mark.case("A01")
def test_pcr_16_relabelled_as_pcr_11(forge: Forge) -> None:
    """The guest extends PCR 16 to what PCR 11 should be, quotes it and says it is PCR 11; both ways."""
    quoted = forge.evidence(forge.quote(selection=banks(bank(SHA256, 0, 7, 16))))
    _expect_refusal(forge, quoted, "selection")
    relabelled = tuple((alg, 16 if index == 11 else index, digest) for alg, index, digest in forge.values)
    _expect_refusal(forge, forge.evidence(values=relabelled), "values")


@pytest.mark.case("A02")
def test_nothing_asked_is_nothing_shown(forge: Forge) -> None:
    quote = forge.quote(selection=banks(), digest=hashlib.sha256().digest())
    _expect_refusal(forge, forge.evidence(quote, values=()), "selection", selection=())


@pytest.mark.case("A09")
def test_sha1_bank_only_by_policy(forge: Forge) -> None:
    values = tuple(
        (SHA1, index, hashlib.sha1(b"%d" % index, usedforsecurity=False).digest()) for index in (0, 7)
    )
    digest = hashlib.sha256(b"".join(value for _, _, value in values)).digest()
    evidence = forge.evidence(forge.quote(selection=banks(bank(SHA1, 0, 7)), digest=digest), values=values)
    asked = ((SHA1, (0, 7)),)
    _expect_refusal(forge, evidence, "selection", selection=asked)
    assert check(forge, evidence, selection=asked, limits=QuoteLimits(allow_sha1_bank=True)).pcrs


@pytest.mark.case("A03")
@pytest.mark.parametrize("case", ["extra", "missing", "twice", "twice and one missing", "none", "length"])
def test_values(forge: Forge, case: str) -> None:
    right = forge.values
    values = {
        "extra": (*right, (SHA256, 12, b"\1" * 32)),
        "missing": right[:2],
        "twice": (*right, right[0]),
        "twice and one missing": (right[0], right[0], right[1]),
        "none": (),
        "length": (*right[:2], (SHA256, 11, b"\1" * 48)),
    }[case]
    _expect_refusal(forge, forge.evidence(values=values), "values")


@pytest.mark.case("A01")
def test_a_value_that_was_not_signed(forge: Forge) -> None:
    swapped = ((SHA256, 0, forge.values[1][2]), (SHA256, 7, forge.values[0][2]), forge.values[2])
    _expect_refusal(forge, forge.evidence(values=swapped), "digest")
    _expect_refusal(forge, forge.evidence(values=(*forge.values[:2], (SHA256, 11, b"\1" * 32))), "digest")


@pytest.mark.case("A19", "A21", "A23", "A24")
@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(b"", id="empty"),
        pytest.param(hashlib.sha256(b"asked").digest()[:31], id="A21 short"),
        pytest.param(hashlib.sha256(b"asked").digest() + b"\0", id="A21 zero-padded"),
        pytest.param(b"\0" + hashlib.sha256(b"asked").digest(), id="A21 zero before"),
        pytest.param(hashlib.sha256(b"asked").hexdigest().encode()[:32], id="A21 another encoding"),
        pytest.param(hashlib.sha256(b"session B").digest(), id="A19, A23, A24 another session"),
    ],
)
def test_qualifying_data(forge: Forge, extra: bytes) -> None:
    _expect_refusal(forge, forge.evidence(forge.quote(extra=extra)), "qualifying data")


@pytest.mark.case("A23")
def test_quote_of_another_host(forge: Forge) -> None:
    other = dataclasses.replace(forge.key, private=ec.generate_private_key(ec.SECP256R1()))
    _expect_refusal(forge, forge.evidence(key=other), "signature")


@pytest.mark.case("A08")
def test_scheme_of_another_kind_of_key(forge: Forge) -> None:
    _expect_refusal(forge, forge.evidence(), "scheme", ak=forge.rsa_key.public)
    _expect_refusal(forge, forge.evidence(key=forge.rsa_key), "scheme")
    relabelled = forge.evidence()
    rsa_signature = forge.rsa_key.sign(relabelled.attest)
    lie = struct.pack(">HH", tpm.ALG_ECDSA, SHA256) + rsa_signature[4:]
    _expect_refusal(forge, dataclasses.replace(relabelled, signature=lie), "structure")
    pss = dataclasses.replace(forge.rsa_key, scheme=tpm.ALG_RSAPSS)
    _expect_refusal(forge, forge.evidence(key=pss), "scheme", ak=forge.rsa_key.public)
    as_ssa = struct.pack(">HH", tpm.ALG_RSASSA, SHA256) + pss.sign(relabelled.attest)[4:]
    _expect_refusal(
        forge, dataclasses.replace(relabelled, signature=as_ssa), "signature", ak=forge.rsa_key.public
    )


@pytest.mark.case("A09")
@pytest.mark.parametrize("hash_alg", [SHA1, SHA384, tpm.ALG_SHA512])
def test_hash_that_is_not_the_keys(forge: Forge, hash_alg: int) -> None:
    _expect_refusal(forge, forge.evidence(key=dataclasses.replace(forge.key, hash_alg=hash_alg)), "scheme")


@pytest.mark.case("A09")
def test_key_with_sha1(forge: Forge) -> None:
    weak = dataclasses.replace(forge.key, hash_alg=SHA1)
    _expect_refusal(forge, forge.evidence(key=weak), "ak", ak=weak.public)


@pytest.mark.case("A10")
def test_weak_keys(forge: Forge) -> None:
    small = dataclasses.replace(forge.rsa_key, private=rsa.generate_private_key(65537, 1024))  # noqa: S505  weak on purpose

    _expect_refusal(forge, forge.evidence(key=small), "ak", ak=small.public)
    curve = dataclasses.replace(forge.key, private=ec.generate_private_key(ec.SECP224R1()))
    _expect_refusal(forge, forge.evidence(key=curve), "ak", ak=curve.public)


@pytest.mark.parametrize("r_and_s", [(0, 1), (1, 0), (0, 0), (2**256 - 1, 1)])
def test_degenerate_ecdsa_signature(forge: Forge, r_and_s: tuple[int, int]) -> None:
    parts = b"".join(b"\0\x20" + value.to_bytes(32, "big") for value in r_and_s)
    forged = dataclasses.replace(
        forge.evidence(), signature=struct.pack(">HH", tpm.ALG_ECDSA, SHA256) + parts
    )
    _expect_refusal(forge, forged, "signature")


def test_no_flipped_bit_passes(forge: Forge) -> None:
    whole = forge.evidence()
    for name in ("attest", "signature"):
        data = getattr(whole, name)
        for bit in range(0, 8 * len(data), 3):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises(QuoteError):
                check(forge, dataclasses.replace(whole, **{name: bytes(changed)}))


def _expect_refusal(forge: Forge, evidence: QuoteEvidence, step: str, **changes: object) -> None:
    with pytest.raises(QuoteError) as caught:
        check(forge, evidence, **changes)
    assert caught.value.step == step
