"""examples/totp: RFC 6238's values from the enclave and from the unprotected twin."""

from __future__ import annotations

import hashlib
import hmac
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from enclave_caller import Caller
from enclave_door import Door

from cafe_lib.toolchain.build import BuildResult
from hypervisor_agent.abi import Status

Build = Callable[[Path], BuildResult]
Start = Callable[[BuildResult], Caller]

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "totp"
HASHES = {"sha1": 1, "sha256": 2, "sha512": 3}
TIMES = (59, 1111111109, 1111111111, 1234567890, 2000000000, 20000000000)
# RFC 6238, appendix B
CODES = {
    "sha1": ("94287082", "07081804", "14050471", "89005924", "69279037", "65353130"),
    "sha256": ("46119246", "68084774", "67062674", "91819424", "90698825", "77737706"),
    "sha512": ("90693936", "25091201", "99943326", "93441116", "38618901", "47863826"),
}
VALUES = [
    (name, time, code) for name, codes in CODES.items() for time, code in zip(TIMES, codes, strict=True)
]
OK, WRONG, ARGUMENT = 0, 1, -1
ACCOUNT = b"rfc6238\0"


@pytest.fixture
def totp(build: Build, start: Start) -> Caller:
    return start(build(EXAMPLE))


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("totp-plain")
    subprocess.run(["make", "-s", f"B={output}", output / "totp-plain"], cwd=EXAMPLE, check=True)
    return output / "totp-plain"


def master_secret() -> bytes:
    text = (EXAMPLE / "secret" / "keys.c").read_text()
    return bytes(int(byte, 16) for byte in re.findall(r"0x([0-9a-f]{2})\b", text))


def test_values_of_the_rfc(totp: Caller) -> None:
    found = []
    for name, time, _ in VALUES:
        reply = totp.call("totp_code", ACCOUNT, time, HASHES[name], 8, 9)
        assert (reply.status, reply.value) == (Status.OK, OK)
        found.append((name, time, reply.outs["code"].rstrip(b"\0").decode()))
    assert found == VALUES


def test_other_accounts_have_keys_derived_from_the_master_secret(totp: Caller) -> None:
    key = hmac.digest(master_secret(), b"alice", "sha256")
    digest = hmac.digest(key, (1000 // 30).to_bytes(8, "big"), "sha256")
    number = int.from_bytes(digest[digest[-1] & 15 :][:4], "big") & 0x7FFFFFFF
    code = totp.call("totp_code", b"alice\0", 1000, 2, 7, 9).outs["code"]
    assert code.rstrip(b"\0").decode() == f"{number % 10**7:07}"


def test_verification_finds_the_step_in_the_window(totp: Caller) -> None:
    def verify(code: bytes, time: int, window: int) -> tuple[object, int]:
        reply = totp.call("totp_verify", ACCOUNT, time, 1, code + b"\0", window, 4)
        return reply.value, int.from_bytes(reply.outs["drift"], "little", signed=True)

    assert verify(b"94287082", 59, 0) == (OK, 0)
    assert verify(b"94287082", 89, 1) == (OK, -1)
    assert verify(b"94287082", 29, 2) == (OK, 1)
    assert verify(b"94287082", 200, 1) == (WRONG, 0)
    assert verify(b"94287083", 59, 1) == (WRONG, 0)


@pytest.mark.parametrize(("hash_id", "digits"), [(0, 6), (4, 6), (1, 5), (1, 9), (2**32 - 1, 6)])
def test_bad_arguments(totp: Caller, hash_id: int, digits: int) -> None:
    assert totp.call("totp_code", ACCOUNT, 59, hash_id, digits, 9).value == ARGUMENT


@pytest.mark.parametrize(("name", "time", "code"), VALUES)
def test_the_unprotected_twin_gives_the_same_values(plain: Path, name: str, time: int, code: str) -> None:
    command = [plain, "code", "rfc6238", "-t", str(time), "-a", name, "-d", "8"]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == code + "\n"


@pytest.mark.parametrize(
    ("words", "exit_code"),
    [
        (["verify", "rfc6238", "94287082", "-t", "89"], 0),
        (["verify", "rfc6238", "94287082", "-t", "89", "-w", "0"], 1),
        (["code", "bob", "-d", "9"], 2),
        (["code"], 2),
        (["code", "bob", "-a", "md5"], 2),
        (["code", "bob", "-t", "x"], 2),
        (["code", "b" * 64], 2),
        (["help"], 2),
    ],
    ids=lambda value: "-".join(value)[:30] if isinstance(value, list) else None,
)
def test_exit_codes_of_the_program(plain: Path, words: list[str], exit_code: int) -> None:
    assert subprocess.run([plain, *words], capture_output=True, check=False).returncode == exit_code


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["-t", "59", "code", "rfc6238", "-d", "8"], (0, "94287082\n")),
        (["-t", "59", "-a", "sha512", "code", "rfc6238", "-d", "8"], (0, "90693936\n")),
        (["-t", "89", "verify", "rfc6238", "94287082"], (0, "valid, -1 steps\n")),
        (["-t", "89", "verify", "rfc6238", "94287082", "-w", "0"], (1, "")),
        (["-t", "59", "code", "rfc6238", "-d", "9"], (2, "")),
        (["code"], (2, "")),
    ],
    ids=lambda value: "-".join(value)[:30] if isinstance(value, list) else None,
)
def test_the_same_functions_from_python(
    build: Build, door: Callable[[BuildResult], Door], words: list[str], answer: tuple[int, str]
) -> None:
    built = build(EXAMPLE)
    modules = str(built.package.parent / "python")
    done = door(built).run(sys.executable, EXAMPLE / "main.py", *words, PYTHONPATH=modules)
    assert (done.returncode, done.stdout) == answer


def test_the_master_secret_is_in_the_image_and_in_no_public_file(build: Build) -> None:
    built = build(EXAMPLE)
    secret = master_secret()
    assert len(secret) == 32
    assert secret in built.image.plaintext
    for path in (built.package, built.static_library, built.shared_library):
        data = path.read_bytes()
        assert not any(secret[i : i + 8] in data for i in range(25))
    assert hashlib.sha256(built.package.read_bytes()).digest() != built.secret_binary_id
