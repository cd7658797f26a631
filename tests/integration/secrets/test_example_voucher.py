"""examples/voucher-rust: secret code in Rust, called from Rust and from Python through an enclave."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from enclave_caller import Caller
from enclave_door import Door

from cafe_lib.toolchain.build import BuildResult
from cafe_lib.toolchain.native import build_native
from cafe_lib.toolchain.project import load_project
from hypervisor_agent.abi import Status

pytestmark = pytest.mark.skipif(shutil.which("rustc") is None, reason="there is no rustc")

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "voucher-rust"
OK, FORGED, ARGUMENT = 0, 1, -1
CODE = "D2YKB-P92W4-PD1NZ-2R7V4"  # serial 7, 5000 cents
WORTH = "serial 7 cents 5000\n"


@pytest.fixture
def voucher(build: Callable[[Path], BuildResult], start: Callable[[BuildResult], Caller]) -> Caller:
    return start(build(EXAMPLE))


def compile_program(library: Path, output: Path) -> Path:
    """Compile main.rs against the library in a build directory, warnings denied, as the Makefile does."""
    flags = ["rustc", "-O", "-Dwarnings", "--edition=2021"]
    crate, program = output / "libvoucher.rlib", output / "voucher"
    binding = library / "rust" / "voucher.rs"
    subprocess.run([*flags, "--crate-type=rlib", f"-L{library}", binding, "-o", crate], check=True)
    subprocess.run([*flags, f"--extern=voucher={crate}", EXAMPLE / "main.rs", "-o", program], check=True)
    return program


@pytest.fixture(scope="module")
def program(build: Callable[[Path], BuildResult], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program(build(EXAMPLE).package.parent, tmp_path_factory.mktemp("voucher-program"))


def issued(caller: Caller, serial: int, cents: int) -> bytes:
    reply = caller.call("voucher_issue", struct.pack("<II", serial, cents), 24)
    assert (reply.status, reply.value) == (Status.OK, OK)
    return reply.outs["code"]


@pytest.mark.parametrize(("serial", "cents"), [(0, 1), (7, 5000), (2**32 - 1, 2**24 - 1)])
def test_a_code_says_what_it_was_issued_for(voucher: Caller, serial: int, cents: int) -> None:
    reply = voucher.call("voucher_check", issued(voucher, serial, cents), 8)
    assert (reply.value, struct.unpack("<II", reply.outs["voucher"])) == (OK, (serial, cents))


def test_no_code_with_another_symbol_is_taken(voucher: Caller) -> None:
    code = issued(voucher, 7, 5000).rstrip(b"\0").decode()
    assert code == CODE
    for place in (index for index, symbol in enumerate(code) if symbol != "-"):
        other = "0" if code[place] != "0" else "1"
        changed = code[:place] + other + code[place + 1 :]
        reply = voucher.call("voucher_check", changed.encode() + b"\0", 8)
        assert (reply.value, reply.outs["voucher"]) == (FORGED, bytes(8))


@pytest.mark.parametrize(
    "typed", [b"", b"----", b"D2YKB", b"D2YKB-P92W4-PD1NZ-2R7V4-0", b"\xff" * 20, b"U" * 20]
)
def test_what_is_no_code(voucher: Caller, typed: bytes) -> None:
    assert voucher.call("voucher_check", typed + b"\0", 8).value == ARGUMENT


def test_people_may_type_it_in_any_way(voucher: Caller) -> None:
    for typed in (CODE.lower(), CODE.replace("-", " "), CODE.replace("1", "l"), CODE.replace("0", "o")):
        assert voucher.call("voucher_check", typed.encode() + b"\0", 8).value == OK


def test_many_codes_at_once(voucher: Caller) -> None:
    codes = [issued(voucher, serial, 100 + serial) for serial in range(50)]
    reply = voucher.call("voucher_total", b"".join([*codes, b"x" * 24]), 51, 4)
    assert reply.value == sum(100 + serial for serial in range(50))
    assert reply.outs["bad"] == (1).to_bytes(4, "little")


def commands(program: Path, built: BuildResult) -> dict[str, tuple[tuple[str | Path, ...], dict[str, str]]]:
    """Start of a command line and environment, by language."""
    python = {"PYTHONPATH": str(built.package.parent / "python")}
    return {"rust": ((program,), {}), "python": ((sys.executable, EXAMPLE / "main.py"), python)}


@pytest.mark.parametrize("language", ["rust", "python"])
def test_programs_call_through_the_enclave(
    build: Callable[[Path], BuildResult], door: Callable[[BuildResult], Door], program: Path, language: str
) -> None:
    built = build(EXAMPLE)
    entrance = door(built)
    command, environment = commands(program, built)[language]

    def run(*words: str, text: str = "") -> tuple[int, str]:
        done = entrance.run(*command, *words, text=text, **environment)
        return done.returncode, done.stdout

    assert run("issue", "7", "5000") == (0, CODE + "\n")
    assert run("check", CODE.lower()) == (0, WORTH)
    assert run("check", CODE[:-1] + "5") == (1, "")
    assert run("issue", "7", "0") == (2, "")
    assert run("total", text=f"{CODE}\n{CODE}\nnone\n") == (0, "cents 10000 bad 1\n")


@pytest.mark.parametrize("language", ["rust", "python"])
def test_without_an_agent_the_programs_say_so(
    build: Callable[[Path], BuildResult], program: Path, language: str, tmp_path: Path
) -> None:
    command, environment = commands(program, build(EXAMPLE))[language]
    environment |= {"CAFE_SOCKET": str(tmp_path / "none"), "PATH": "/usr/bin"}
    done = subprocess.run(
        [*command, "check", CODE], env=environment, capture_output=True, check=False, text=True
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert "agent" in done.stderr


def test_the_unprotected_twin_gives_the_same(tmp_path: Path) -> None:
    project = load_project(EXAMPLE, "native")
    build_native(project, lambda _: None, tmp_path / "native")
    twin = compile_program(tmp_path / "native", tmp_path)
    done = subprocess.run([twin, "issue", "7", "5000"], capture_output=True, check=True, text=True)
    assert done.stdout == CODE + "\n"


def test_the_key_is_in_the_image_and_in_no_public_file(build: Callable[[Path], BuildResult]) -> None:
    built = build(EXAMPLE)
    key = (0x8F3B1C5AD2E94670, 0x4CE7A09B61D3F825)
    words = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
    # rustc folds the first step of SipHash into the key
    halves = [(key[i % 2] ^ word).to_bytes(8, "little") for i, word in enumerate(words)]
    assert any(half in built.image.plaintext for half in halves)
    for path in (built.package, built.static_library, built.shared_library, *built.bindings):
        assert not any(half in path.read_bytes() for half in halves)
