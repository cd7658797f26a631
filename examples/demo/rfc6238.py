"""The test values of RFC 6238, appendix B, as commands of the example and what they must print."""

from __future__ import annotations

_VALUES = {
    59: ("94287082", "46119246", "90693936"),
    1111111109: ("07081804", "68084774", "25091201"),
    1111111111: ("14050471", "67062674", "99943326"),
    1234567890: ("89005924", "91819424", "93441116"),
    2000000000: ("69279037", "90698825", "38618901"),
    20000000000: ("65353130", "77737706", "47863826"),
}
_HASHES = ("sha1", "sha256", "sha512")
LINES = [f"code rfc6238 -t {time} -a {name} -d 8" for time in _VALUES for name in _HASHES]


def expected_codes() -> list[str]:
    """Return the codes in the order of LINES."""
    return [code for codes in _VALUES.values() for code in codes]
