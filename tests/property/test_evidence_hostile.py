"""Any bytes into the TPM parsers and the policy reader: a value or a typed error, never an accepted quote."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cafe_lib.errors import PolicyError, ProtocolError, QuoteError
from cafe_lib.evidence import tpm
from cafe_lib.evidence.ak import verify_ak_attributes, verify_ek_public
from cafe_lib.evidence.credential import make_credential
from cafe_lib.evidence.policy import parse_policy
from cafe_lib.evidence.publickey import name_of
from cafe_lib.evidence.quote import QuoteEvidence, verify_quote

VECTOR = json.loads((Path(__file__).parents[1] / "vectors/tpm/quote.json").read_text())["ecdsa p-256"]
ATTEST, SIGNATURE, AK, EK = (
    bytes.fromhex(VECTOR[name]) for name in ("attest", "signature", "ak_public", "ek_public")
)
VALUES = tuple((alg, index, bytes.fromhex(digest)) for alg, index, digest in VECTOR["pcr_values"])
SELECTION = tuple((alg, tuple(indices)) for alg, indices in VECTOR["selection"])
EVIDENCE = QuoteEvidence(ATTEST, SIGNATURE, VALUES)
ASKED = bytes.fromhex(VECTOR["qualifying_data"])
PATCHES = st.tuples(st.integers(0, 10_000), st.integers(0, 8), st.binary(max_size=8))
PARSERS = (tpm.parse_attest, tpm.parse_signature, tpm.parse_public)


def patched(data: bytes, patch: tuple[int, int, bytes]) -> bytes:
    place, removed, added = patch
    start = place % (len(data) + 1)
    return data[:start] + added + data[start + removed :]


@given(st.binary(max_size=300))
@settings(max_examples=200)
def test_any_bytes_into_the_parsers(data: bytes) -> None:
    for parse in PARSERS:
        for tried in (data, b"\xffTCG\x80\x18" + data, b"\0\x18\0\x0b" + data):
            try:
                assert parse(tried)
            except ProtocolError:
                continue


@given(PATCHES)
@settings(max_examples=300)
def test_patched_structures(patch: tuple[int, int, bytes]) -> None:
    for name, data in (("attest", ATTEST), ("signature", SIGNATURE)):
        changed = patched(data, patch)
        if changed == data:
            continue
        try:
            verify_quote(replace(EVIDENCE, **{name: changed}), tpm.parse_public(AK), ASKED, SELECTION)
        except QuoteError:
            continue
        raise AssertionError("a changed quote was accepted")


@given(PATCHES)
@settings(max_examples=200)
def test_patched_public_areas(patch: tuple[int, int, bytes]) -> None:
    """A changed key is refused, or it is another key with another name: no credential for it opens."""
    for data, verify in ((AK, verify_ak_attributes), (EK, verify_ek_public)):
        try:
            public = verify(tpm.parse_public(patched(data, patch)))
        except (ProtocolError, QuoteError):
            continue
        assert (public.raw == data[2:]) == (name_of(public) == name_of(tpm.parse_public(data)))


@given(PATCHES)
@settings(max_examples=50, deadline=None)
def test_credentials_for_patched_keys(patch: tuple[int, int, bytes]) -> None:
    try:
        blob, seed = make_credential(tpm.parse_public(patched(EK, patch)), b"\0\x0b" + b"n" * 32, b"s" * 32)
    except (ProtocolError, QuoteError):
        return
    assert len(blob) < 200
    assert len(seed) <= 514


@given(
    st.lists(
        st.tuples(
            st.sampled_from([4, 11, 12, 99]), st.integers(0, 23), st.sampled_from([VALUES[0][2], b"\1" * 20])
        ),
        max_size=5,
    )
)
def test_any_values(values: list[tuple[int, int, bytes]]) -> None:
    try:
        verify_quote(replace(EVIDENCE, pcr_values=tuple(values)), tpm.parse_public(AK), ASKED, SELECTION)
    except QuoteError:
        return
    assert sorted(values) == sorted(VALUES)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=10)
    | st.just("11" * 32),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["version", "pcrs", "alg", "index", "values", "allow_constant", "x"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=10,
)


@given(st.binary(max_size=100), JSON, JSON)
@settings(max_examples=300)
def test_any_policy(data: bytes, document: object, pcrs: object) -> None:
    whole = {"version": 1, "pcrs": pcrs}
    for tried in (data, json.dumps(document).encode(), json.dumps(whole).encode()):
        try:
            policy = parse_policy(tried)
        except (ProtocolError, PolicyError):
            continue
        assert policy.pcrs
        assert all(rule.values for rule in policy.pcrs.values())
