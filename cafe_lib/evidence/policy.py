"""Policies: named PCR values, and clock rules. Whatever is empty, unknown or misspelt denies."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Final, Protocol

from cafe_lib.errors import LimitError, MalformedError, PolicyError, QuoteError
from cafe_lib.evidence import tpm
from cafe_lib.evidence.quote import QuoteLimits, VerifiedQuote
from cafe_lib.wire import limits

_ALGORITHMS: Final = {name: algorithm for algorithm, name in tpm.HASH_NAMES.items()}
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_DIGEST: Final = re.compile(r"(?:[0-9a-f]{2})+")
_SEPARATORS: Final = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\1")
_DEFAULT_AGE_SECONDS: Final = 3600
_MAX_VERSION: Final = 2**31 - 1
_OPTIONAL: Final = {"max_quote_age_seconds", "allow_sha1", "allow_debug"}


@dataclass(frozen=True, slots=True)
class PcrRule:
    """One PCR: bank, index, allowed values. `allow_constant`: all zero, all ff or a separator may be one."""

    algorithm: int
    index: int
    values: tuple[bytes, ...]
    allow_constant: bool = False


@dataclass(frozen=True, slots=True)
class VerifiedPolicy:
    """A quote met this version of the policy; `names` are the rules, in order."""

    version: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """Every rule must hold. `max_quote_age_seconds`: how old a quote may be when a release is granted.

    `allow_debug`: releases built for debugging may be granted, too.
    """

    version: int
    pcrs: dict[str, PcrRule]
    max_quote_age_seconds: int = _DEFAULT_AGE_SECONDS
    allow_sha1: bool = False
    allow_debug: bool = False

    def selection(self) -> tpm.PcrSelection:
        """Return the PCRs to ask for: banks by algorithm id, indices ascending."""
        places = sorted({(rule.algorithm, rule.index) for rule in self.pcrs.values()})
        banks = sorted({algorithm for algorithm, _ in places})
        return tuple((bank, tuple(index for other, index in places if other == bank)) for bank in banks)

    def quote_limits(self) -> QuoteLimits:
        """Return what this policy loosens in the verification of quotes."""
        return QuoteLimits(allow_sha1_bank=self.allow_sha1)

    def verify(self, quote: VerifiedQuote) -> VerifiedPolicy:
        """Check every rule; raises PolicyError that names the first one not met."""
        if not self.pcrs:
            raise PolicyError("the policy is empty")
        for name, rule in self.pcrs.items():
            value = quote.pcrs.get((rule.algorithm, rule.index))
            if value is None:
                raise PolicyError(f"{name}: the PCR was not quoted")
            if value not in rule.values:
                raise PolicyError(f"{name}: the PCR's value {value.hex()} is not an allowed one")
            if is_constant(rule.algorithm, value) and not rule.allow_constant:
                raise PolicyError(f"{name}: nothing was measured into the PCR")
        return VerifiedPolicy(self.version, tuple(self.pcrs))


def is_constant(algorithm: int, value: bytes) -> bool:
    """Say whether a value shows that nothing was measured: all zero, all ff, or one separator only."""
    if not value.strip(b"\0") or not value.strip(b"\xff"):
        return True
    name = tpm.HASH_NAMES[algorithm]
    zeros = bytes(len(value))
    return any(
        value == hashlib.new(name, zeros + hashlib.new(name, separator).digest()).digest()
        for separator in _SEPARATORS
    )


class ClockState(Protocol):
    """What two quotes of one TPM are compared by; a VerifiedQuote has it."""

    @property
    def clock(self) -> int:
        """Milliseconds."""

    @property
    def reset_count(self) -> int:
        """Resets of the TPM, since it was cleared."""

    @property
    def restart_count(self) -> int:
        """Restarts and resumes since the last reset."""


def verify_clock(previous: ClockState | None, current: ClockState) -> None:
    """Refuse a TPM whose time went back since `previous`; raises QuoteError (step "clock").

    `safe` = 0 alone is normal after a power loss. A cleared TPM starts at 0, and has to be enrolled again.
    """
    if previous is None:
        return
    if current.reset_count < previous.reset_count:
        raise QuoteError("the TPM's reset count went back", step="clock")
    if current.reset_count > previous.reset_count:
        return
    if current.restart_count < previous.restart_count or current.clock < previous.clock:
        raise QuoteError("the TPM's clock went back", step="clock")


# ------------------------------------------------------------------ the JSON form


def parse_policy(data: bytes) -> Policy:
    """Parse a policy document; raises LimitError, MalformedError (not JSON) or PolicyError (not a policy).

    ``{"version": 1, "pcrs": {"boot": {"alg": "sha256", "index": 11, "values": ["00..."]}}}``; optional are
    ``allow_constant`` in a rule; ``max_quote_age_seconds``, ``allow_sha1`` and ``allow_debug`` in the policy.
    """
    if len(data) > limits.MAX_POLICY_BYTES:
        raise LimitError(f"a policy of {len(data)} bytes, at most {limits.MAX_POLICY_BYTES}")
    try:
        document = json.loads(data.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise MalformedError("the policy is not JSON") from error
    fields = _fields(document, {"version", "pcrs"}, _OPTIONAL, "policy")
    rules = fields["pcrs"]
    if not isinstance(rules, dict) or not 0 < len(rules) <= limits.MAX_POLICY_PCRS:
        raise PolicyError(f"pcrs: 1 to {limits.MAX_POLICY_PCRS} named PCRs are needed")
    allow_sha1 = _flag(fields, "allow_sha1")
    return Policy(
        _integer(fields["version"], 1, _MAX_VERSION, "version"),
        {_name(name): _rule(name, rule, allow_sha1=allow_sha1) for name, rule in rules.items()},
        _integer(
            fields.get("max_quote_age_seconds", _DEFAULT_AGE_SECONDS),
            1,
            limits.MAX_SESSION_SECONDS,
            "max_quote_age_seconds",
        ),
        allow_sha1,
        _flag(fields, "allow_debug"),
    )


def _rule(name: str, document: object, *, allow_sha1: bool) -> PcrRule:
    fields = _fields(document, {"alg", "index", "values"}, {"allow_constant"}, name)
    algorithm = _ALGORITHMS.get(fields["alg"]) if isinstance(fields["alg"], str) else None
    if algorithm is None or (algorithm == tpm.ALG_SHA1 and not allow_sha1):
        raise PolicyError(f"{name}: alg is unknown or not allowed")
    index = _integer(fields["index"], 0, limits.MAX_PCR_INDEX, f"{name}: index")
    values = fields["values"]
    if not isinstance(values, list) or not 0 < len(values) <= limits.MAX_POLICY_VALUES:
        raise PolicyError(f"{name}: 1 to {limits.MAX_POLICY_VALUES} values are needed")
    allow_constant = _flag(fields, "allow_constant")
    digests = tuple(_digest(value, tpm.DIGEST_BYTES[algorithm], name) for value in values)
    if not allow_constant and any(is_constant(algorithm, digest) for digest in digests):
        raise PolicyError(
            f"{name}: a value that shows nothing was measured", hint='set "allow_constant": true'
        )
    return PcrRule(algorithm, index, digests, allow_constant)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def _fields(document: object, needed: set[str], optional: set[str], where: str) -> dict[str, object]:
    if not isinstance(document, dict):
        raise PolicyError(f"{where}: an object is needed")
    if missing := needed - set(document):
        raise PolicyError(f"{where}: {', '.join(sorted(missing))} missing")
    if unknown := set(document) - needed - optional:
        raise PolicyError(f"{where}: unknown {', '.join(sorted(map(repr, unknown)))}")
    return document


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise PolicyError("a PCR's name has other characters than a-z, 0-9 and _.-")
    return name


def _integer(value: object, least: int, most: int, where: str) -> int:
    if type(value) is not int or not least <= value <= most:
        raise PolicyError(f"{where}: an integer from {least} to {most} is needed")
    return value


def _flag(fields: dict[str, object], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise PolicyError(f"{name}: true or false is needed")
    return value


def _digest(value: object, length: int, where: str) -> bytes:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value) or len(value) != 2 * length:
        raise PolicyError(f"{where}: a value is not {length} bytes in lower-case hex")
    return bytes.fromhex(value)
