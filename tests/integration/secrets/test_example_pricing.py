"""examples/pricing-cxx: secret code in C++ with exceptions and a callback, called by its program."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from enclave_caller import Caller
from enclave_door import Door

from cafe_lib.toolchain.build import BuildResult
from cafe_lib.toolchain.native import build_native
from cafe_lib.toolchain.project import load_project
from hypervisor_agent.abi import Status

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "pricing-cxx"
STOCK = "anvil 14\nrocket-skates 3\nbird-seed 5000\n"
ASKED = ("anvil=30", "rocket-skates=1", "bird-seed=100", "magnet=2")
QUOTE = "anvil 30 405270\nrocket-skates 1 50648\nbird-seed 100 34600\nmagnet 2 14710\n"
Run = Callable[..., tuple[int, str]]


def compile_program(library: Path, output: Path) -> Path:
    program = output / "pricing"
    flags = ["-O2", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wconversion", f"-I{library}/include"]
    command = ["g++", *flags, EXAMPLE / "main.cc", library / "libpricing.a", "-pthread", "-o", program]
    subprocess.run(command, check=True)
    return program


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pricing") / "stock.txt"
    path.write_text(STOCK)
    return path


@pytest.fixture
def run(
    build: Callable[[Path], BuildResult], door: Callable[[BuildResult], Door], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    built = build(EXAMPLE)
    program, entrance = compile_program(built.package.parent, tmp_path), door(built)

    def begin(*words: str | Path) -> tuple[int, str, str]:
        done = entrance.run(program, *words)
        return done.returncode, done.stdout, done.stderr

    return begin


def test_prices_follow_customer_quantity_and_the_program_s_stock(
    run: Run, stock: Path, tmp_path: Path
) -> None:
    assert run("quote", stock, "coyote", *ASKED) == (0, QUOTE, "")
    assert run("quote", stock, "roadrunner", "anvil=1") == (0, "anvil 1 14224\n", "")
    plenty = tmp_path / "plenty.txt"
    plenty.write_text("anvil 100000\n")
    assert run("quote", plenty, "roadrunner", "anvil=1") == (0, "anvil 1 12470\n", "")
    assert run("quote", plenty, "acme-resale", "anvil=250") == (0, "anvil 250 2218000\n", "")


def test_an_exception_caught_inside_is_a_result(run: Run, stock: Path) -> None:
    code, text, message = run("quote", stock, "coyote", "anvil=1", "tnt=1")
    assert (code, text) == (1, "")
    assert "no such product" in message


def test_an_exception_that_leaves_is_the_error_value(run: Run) -> None:
    assert run("list", "anvil=2") == (0, "25980\n", "")
    code, text, message = run("list", "tnt=2")
    assert (code, text) == (3, "")
    assert message.startswith("pricing: ")


def test_an_exception_that_leaves_harms_no_other_call(
    build: Callable[[Path], BuildResult], start: Callable[[BuildResult], Caller]
) -> None:
    """The header is C; the enclave's side of it is compiled as C++ all the same."""
    caller = start(build(EXAMPLE))
    for _ in range(3):
        assert caller.call("pricing_list", b"tnt\0", 2).status is Status.ABORT
        assert caller.call("pricing_list", b"anvil\0", 2).value == 25980
    assert caller.enclave.wait(0) is None


@pytest.mark.parametrize("words", [[], ["quote"], ["list"], ["list", "anvil"], ["list", "anvil=0"]])
def test_exit_codes_of_the_program_and_its_unprotected_twin(
    words: list[str], twin: Path, stock: Path
) -> None:
    assert subprocess.run([twin, *words], capture_output=True, check=False).returncode == 2
    done = subprocess.run(
        [twin, "quote", stock, "coyote", *ASKED], capture_output=True, check=True, text=True
    )
    assert done.stdout == QUOTE


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("pricing-native")
    build_native(load_project(EXAMPLE, "native"), lambda _: None, output)
    return compile_program(output, output)
