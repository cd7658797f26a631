"""The leak check: every kind of planted secret is found, clean files pass, waivers name one match."""

from __future__ import annotations

import hashlib
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cafe_lib.errors import BuildError, LeakError
from cafe_lib.toolchain.leak import LeakReport, check_leaks
from cafe_lib.toolchain.leak_patterns import LeakKind

STRING = b"the formula of the planted drink"
SHORT = b"m0jit0!"
TABLE = bytes(random.Random(5).randbytes(64))  # noqa: S311 - test data
WORD = (0x9E3C4B5A69788796).to_bytes(8, "little")
SECRET = f"""
#include <stdint.h>
#include <string.h>
static const unsigned char planted_table[64] = {{{", ".join(map(str, TABLE))}}};
static const char *const planted_text = "{STRING.decode()}";
const char planted_short[] = "{SHORT.decode()}";
int planted_public(const char *input);
__attribute__((noinline)) static uint64_t planted_step(uint64_t x, unsigned i) {{
    return (x ^ planted_table[i & 63]) * 0x9e3c4b5a69788796ull + (x >> (i % 17));
}}
int planted_public(const char *input) {{
    uint64_t x = strlen(planted_text);
    for (unsigned i = 0; input[i]; i++) {{
        x = planted_step(x, (unsigned char)input[i] + i);
    }}
    return (int)(x % 1000003) + planted_short[x % 7] + planted_text[x % 31];
}}
"""
PUBLIC = "int planted_public(const char *input) { return input[0] + 41; }\n"


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _compile(tmp_path_factory.mktemp("secret"), "secret", SECRET)


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _compile(tmp_path_factory.mktemp("public"), "stub", PUBLIC)


@pytest.fixture
def plant(public: Path, tmp_path: Path) -> Callable[[bytes], Path]:
    """Make a public file with something in the middle of it."""

    def planted(data: bytes) -> Path:
        path = tmp_path / "planted.bin"
        clean = public.read_bytes()
        path.write_bytes(clean + b"\0" * 5 + data + b"\0" + clean)
        return path

    return planted


def _compile(place: Path, name: str, text: str) -> Path:
    source, target = place / f"{name}.c", place / f"{name}.o"
    source.write_text(text)
    flags = ["-O2", "-fPIE", "-ffunction-sections", "-fno-stack-protector", "-fcf-protection=none"]
    subprocess.run(["gcc", *flags, "-c", source, "-o", target], check=True)
    return target


def _check(secret: Path, *artefacts: Path, **settings: object) -> LeakReport:
    return check_leaks([secret], artefacts, exported={"planted_public"}, **settings)  # type: ignore[arg-type]


def _code(secret: Path) -> bytes:
    """24 bytes from the loop of the secret function."""
    data = secret.read_bytes()
    return data[data.index(WORD) - 2 :][:24]


@pytest.mark.case("D01")
def test_clean_artefact_passes(secret: Path, public: Path) -> None:
    report = _check(secret, public)
    assert report.matches == ()
    assert report.patterns > 50
    assert report.scanned_bytes == public.stat().st_size
    report.verify()


@pytest.mark.parametrize(
    ("kind", "find"),
    [
        (LeakKind.CODE, _code),
        (LeakKind.CONSTANT, lambda _: TABLE[7:23]),
        (LeakKind.CONSTANT, lambda _: STRING[3:19]),
        (LeakKind.WORD, lambda _: WORD),
        (LeakKind.STRING, lambda _: STRING),
        (LeakKind.STRING, lambda _: SHORT),
        (LeakKind.SYMBOL, lambda _: b"planted_step"),
        (LeakKind.SYMBOL, lambda _: b"planted_table"),
    ],
    ids=["code", "table", "part_of_string", "word", "string", "short_string", "function", "variable"],
)
@pytest.mark.case("D01")
def test_planted_leak_is_found(
    secret: Path, plant: Callable[[bytes], Path], kind: LeakKind, find: Callable[[Path], bytes]
) -> None:
    data = find(secret)
    path = plant(data)
    found = [match for match in _check(secret, path).matches if match.kind is kind]
    assert len(found) == 1
    assert found[0].artefact == "planted.bin"
    assert path.read_bytes()[found[0].offset : found[0].offset + found[0].length] == data
    assert found[0].section.startswith("secret.o:")


@pytest.mark.case("D01")
def test_the_whole_secret_object_is_one_big_leak(secret: Path) -> None:
    report = _check(secret, secret)
    assert {match.kind for match in report.matches} == set(LeakKind)
    with pytest.raises(LeakError) as caught:
        report.verify()
    for data in (STRING, SHORT):
        assert data.decode() not in caught.value.detail
    assert TABLE.hex()[:16] not in caught.value.detail


def test_exported_name_is_no_leak(secret: Path, plant: Callable[[bytes], Path]) -> None:
    path = plant(b"planted_public")
    assert _check(secret, path).matches == ()
    assert {match.kind for match in check_leaks([secret], [path]).matches} == {LeakKind.SYMBOL}


@pytest.mark.parametrize(
    "data",
    [
        b"xplanted_step",
        b"planted_step2",
        TABLE[:7],
        WORD[:7],
        STRING[:15],
        SHORT[1:],
        b"\0" * 99,
        b"\x90" * 99,
    ],
    ids=["in_a_word", "longer_word", "table", "word", "string", "short", "zeros", "padding"],
)
def test_what_is_too_little_is_no_leak(secret: Path, plant: Callable[[bytes], Path], data: bytes) -> None:
    assert _check(secret, plant(data)).matches == ()


def test_waiver_names_one_match(secret: Path, plant: Callable[[bytes], Path]) -> None:
    path = plant(STRING + b"\0" + TABLE)
    before = _check(secret, path)
    waived = next(match.sha256 for match in before.matches if match.kind is LeakKind.STRING)
    assert waived == hashlib.sha256(b"cafe leak v1 string\0" + STRING).hexdigest()
    after = _check(secret, path, waivers={waived, "0" * 64})
    assert [match.sha256 for match in after.waived] == [waived]
    assert after.unused == ("0" * 64,)
    assert len(after.matches) == len(before.matches) - 1
    with pytest.raises(LeakError):
        after.verify()


def test_what_is_in_known_public_files_is_no_secret(
    secret: Path, plant: Callable[[bytes], Path], tmp_path: Path
) -> None:
    known = tmp_path / "known.o"
    known.write_bytes(TABLE[:40] + b"\0planted_step\0" + SHORT + b"\0")
    everything = plant(TABLE + b"\0planted_step\0" + SHORT + b"\0" + STRING)
    kinds = {match.kind for match in _check(secret, everything, known=[known]).matches}
    assert kinds == {LeakKind.CONSTANT, LeakKind.WORD, LeakKind.STRING}
    assert _check(secret, known, known=[known]).matches == ()


@pytest.mark.parametrize("offset", [0, 1, 7, (128 << 10) - 30, (128 << 10) - 1, 128 << 10, (256 << 10) - 8])
@pytest.mark.case("D01")
def test_found_at_every_place(secret: Path, tmp_path: Path, offset: int) -> None:
    """Across the edges of the scanner's blocks, and at the very end."""
    path = tmp_path / "large.bin"
    path.write_bytes(b"\xaa" * offset + TABLE + b"\0" * 3 + STRING)
    found = {(match.kind, match.offset) for match in _check(secret, path).matches}
    assert {(LeakKind.CONSTANT, offset), (LeakKind.STRING, offset + 67)} <= found


def test_the_padding_between_functions_is_no_secret(tmp_path: Path, plant: Callable[[bytes], Path]) -> None:
    """Compilers align with long no-ops, which stand in every library."""
    padding = bytes.fromhex("66662e0f1f840000000000" * 2 + "0f1f4000" + "6690")
    body = random.Random(9).randbytes(40)  # noqa: S311 - test data
    words = ", ".join(str(byte) for byte in body + padding + body[::-1])
    text = f'__asm__(".text\\n.byte {words}");'
    padded = _compile(tmp_path, "padded", text)
    assert _check(padded, plant(padding + b"\x4d\x89\xc7\x89")).matches == ()
    assert {match.kind for match in _check(padded, plant(body)).matches} == {LeakKind.CODE}


def test_random_data_has_no_match(secret: Path, tmp_path: Path) -> None:
    path = tmp_path / "random.bin"
    path.write_bytes(random.Random(1).randbytes(32 << 20))  # noqa: S311 - test data
    assert _check(secret, path).matches == ()


@pytest.mark.parametrize(
    "data", [b"", b"\x7fELF", b"\x7fELF\2\1\1" + b"\xff" * 60, b"!<arch>\n"], ids=range(4)
)
def test_files_that_are_no_objects(tmp_path: Path, public: Path, data: bytes) -> None:
    path = tmp_path / "bad.o"
    path.write_bytes(data)
    with pytest.raises(BuildError, match="not a readable object file"):
        check_leaks([path], [public])


def test_absent_files(secret: Path, public: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError):
        check_leaks([tmp_path / "absent.o"], [public])
    with pytest.raises(BuildError):
        check_leaks([secret], [tmp_path / "absent.a"])
    (tmp_path / "empty.a").write_bytes(b"")
    assert check_leaks([secret], [tmp_path / "empty.a"]).matches == ()
