"""Policies deny whatever they do not clearly allow; TPM clocks never go back."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest

from cafe_lib.errors import CafeError, LimitError, MalformedError, PolicyError, QuoteError
from cafe_lib.evidence import tpm
from cafe_lib.evidence.policy import Policy, is_constant, parse_policy, verify_clock
from cafe_lib.evidence.quote import VerifiedQuote

GOOD = hashlib.sha256(b"good").digest()
BETTER = hashlib.sha256(b"better").digest()
RULE = {"alg": "sha256", "index": 11, "values": [GOOD.hex(), BETTER.hex()]}
DOCUMENT = {"version": 3, "pcrs": {"launcher": RULE}}
ZERO, ONES = "00" * 32, "ff" * 32
SEPARATOR = hashlib.sha256(bytes(32) + hashlib.sha256(bytes(4)).digest()).hexdigest()


def parse(**changes: object) -> Policy:
    return parse_policy(json.dumps(DOCUMENT | changes).encode())


def rule(**changes: object) -> dict[str, object]:
    return {"pcrs": {"launcher": RULE | changes}}


def quote(value: bytes = GOOD, index: int = 11) -> VerifiedQuote:
    return VerifiedQuote({(tpm.ALG_SHA256, index): value}, 100, 5, 6, safe=True, firmware=1)


def test_a_policy_is_met() -> None:
    policy = parse()
    assert policy.selection() == ((tpm.ALG_SHA256, (11,)),)
    for value in (GOOD, BETTER):
        met = policy.verify(quote(value))
        assert (met.version, met.names) == (3, ("launcher",))


def test_options() -> None:
    policy = parse(max_quote_age_seconds=60, allow_sha1=True)
    assert policy.max_quote_age_seconds == 60
    assert policy.quote_limits().allow_sha1_bank
    assert not parse().quote_limits().allow_sha1_bank


def test_selection_is_sorted_and_each_place_once() -> None:
    pcrs = {
        "b": RULE | {"index": 12},
        "a": RULE,
        "again": RULE,
        "big": {"alg": "sha384", "index": 0, "values": ["11" * 48]},
    }
    assert parse(pcrs=pcrs).selection() == ((tpm.ALG_SHA256, (11, 12)), (tpm.ALG_SHA384, (0,)))


@pytest.mark.case("A34")
def test_every_rule_must_hold() -> None:
    policy = parse(pcrs={"launcher": RULE, "kernel": RULE | {"index": 12}})
    with pytest.raises(PolicyError, match="kernel: the PCR was not quoted"):
        policy.verify(quote())
    two = dataclasses.replace(quote(), pcrs={(11, 11): GOOD, (11, 12): b"\1" * 32})
    with pytest.raises(PolicyError, match="kernel"):
        policy.verify(two)


@pytest.mark.case("A34")
def test_not_met() -> None:
    with pytest.raises(PolicyError):
        parse().verify(quote(b"\1" * 32))
    with pytest.raises(PolicyError):
        parse().verify(quote(GOOD, index=12))
    with pytest.raises(PolicyError):
        Policy(1, {}).verify(quote())


BAD = {
    "empty object": {"version": 1, "pcrs": {}},
    "pcrs a list": {"version": 1, "pcrs": [RULE]},
    "pcrs missing": {"version": 1},
    "version missing": {"pcrs": {"launcher": RULE}},
    "version 0": DOCUMENT | {"version": 0},
    "version true": DOCUMENT | {"version": True},
    "version as text": DOCUMENT | {"version": "1"},
    "misspelt pcrs": {"version": 1, "pcr": {"launcher": RULE}},
    "misspelt beside": DOCUMENT | {"max_quote_age": 60},
    "age 0": DOCUMENT | {"max_quote_age_seconds": 0},
    "age for ever": DOCUMENT | {"max_quote_age_seconds": 10**9},
    "allow_sha1 as text": DOCUMENT | {"allow_sha1": "no"},
    "rule empty": DOCUMENT | {"pcrs": {"launcher": {}}},
    "rule null": DOCUMENT | {"pcrs": {"launcher": None}},
    "misspelt values": DOCUMENT
    | {"pcrs": {"launcher": {"alg": "sha256", "index": 1, "value": [GOOD.hex()]}}},
    "unknown in a rule": DOCUMENT | rule(mode="any"),
    "no values": DOCUMENT | rule(values=[]),
    "value null": DOCUMENT | rule(values=[None]),
    "values a text": DOCUMENT | rule(values=GOOD.hex()),
    "value too short": DOCUMENT | rule(values=[GOOD.hex()[:-2]]),
    "value of another bank": DOCUMENT | rule(values=["11" * 48]),
    "value in capitals": DOCUMENT | rule(values=[GOOD.hex().upper()]),
    "wildcard": DOCUMENT | rule(values=["*"]),
    "too many values": DOCUMENT | rule(values=[GOOD.hex()] * 257),
    "unknown algorithm": DOCUMENT | rule(alg="sha3"),
    "algorithm by number": DOCUMENT | rule(alg=11),
    "algorithm a list": DOCUMENT | rule(alg=["sha256"]),
    "SHA-1 not allowed": DOCUMENT | rule(alg="sha1", values=["11" * 20]),
    "PCR 24": DOCUMENT | rule(index=24),
    "PCR -1": DOCUMENT | rule(index=-1),
    "PCR 1.0": DOCUMENT | rule(index=1.0),
    "bad name": DOCUMENT | {"pcrs": {"Launcher!": RULE}},
    "too many PCRs": DOCUMENT | {"pcrs": {f"p{n}": RULE for n in range(33)}},
    "a list": [],
    "a text": "policy",
    "null": None,
    "all zero": DOCUMENT | rule(values=[ZERO]),
    "all ff": DOCUMENT | rule(values=[ONES]),
    "separator only": DOCUMENT | rule(values=[SEPARATOR]),
}


@pytest.mark.case("A34")
@pytest.mark.parametrize("document", BAD.values(), ids=BAD.keys())
def test_bad_policy(document: object) -> None:
    with pytest.raises(PolicyError):
        parse_policy(json.dumps(document).encode())


@pytest.mark.case("A34")
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(b"\xff", id="not UTF-8"),
        pytest.param(b'{"version": 1, "version": 1, "pcrs": {}}', id="key twice"),
        pytest.param(b"[" * 60000, id="60000 brackets"),
        pytest.param(b"9" * 60000, id="a number of 60000 digits"),
    ],
)
def test_not_a_document(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_policy(data)


def test_size_is_bounded() -> None:
    with pytest.raises(LimitError):
        parse_policy(b" " * (1 << 20))


@pytest.mark.case("A26")
@pytest.mark.parametrize("value", [ZERO, ONES, SEPARATOR], ids=["all zero", "all ff", "separator only"])
def test_constant_values_need_an_explicit_word(value: str) -> None:
    digest = bytes.fromhex(value)
    assert is_constant(tpm.ALG_SHA256, digest)
    loose = parse(**rule(values=[value], allow_constant=True))
    assert loose.verify(quote(digest)).version == 3
    tightened = {name: dataclasses.replace(one, allow_constant=False) for name, one in loose.pcrs.items()}
    with pytest.raises(PolicyError, match="nothing was measured"):
        dataclasses.replace(loose, pcrs=tightened).verify(quote(digest))


def test_a_measured_value_is_not_constant() -> None:
    assert not is_constant(tpm.ALG_SHA256, GOOD)
    assert not is_constant(tpm.ALG_SHA256, b"\0" * 31 + b"\xff")


@pytest.mark.case("A25")
@pytest.mark.parametrize(
    ("clock", "resets", "restarts", "safe", "fine"),
    [
        pytest.param(100, 5, 6, True, True, id="the same"),
        pytest.param(101, 5, 6, True, True, id="later"),
        pytest.param(101, 5, 7, True, True, id="resumed"),
        pytest.param(101, 5, 6, False, True, id="safe = 0 alone"),
        pytest.param(1, 6, 0, False, True, id="power loss"),
        pytest.param(99, 5, 6, True, False, id="clock went back"),
        pytest.param(99, 5, 7, False, False, id="clock went back and resumed"),
        pytest.param(101, 5, 5, True, False, id="restart count went back"),
        pytest.param(101, 4, 6, True, False, id="reset count went back"),
        pytest.param(0, 0, 0, True, False, id="cleared"),
    ],
)
def test_clock(clock: int, resets: int, restarts: int, safe: bool, fine: bool) -> None:  # noqa: FBT001  a table
    now = VerifiedQuote({}, clock, resets, restarts, safe=safe, firmware=1)
    verify_clock(None, now)
    if fine:
        verify_clock(quote(), now)
        return
    with pytest.raises(CafeError) as caught:
        verify_clock(quote(), now)
    assert isinstance(caught.value, QuoteError)
    assert caught.value.step == "clock"
