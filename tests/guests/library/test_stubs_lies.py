"""Stubs of structs with pointers, bulk buffers and callbacks against a liar on the other side."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cafe_lib.interface.parse import parse_header

if TYPE_CHECKING:
    from tests.guests.library.conftest import Shop

ROOT = Path(__file__).resolve().parents[3]
NATIVE = Path(__file__).resolve().parent / "native"
RUNTIME, GUEST = (f"-I{ROOT}/cafe_lib/{name}" for name in ("runtime", "guest"))
SECONDS = "1.5"


def racing(done: subprocess.CompletedProcess[str]) -> list[int]:
    """Give the numbers a hostile program prints when all is good."""
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("all good\n")
    return [int(number) for number in re.findall(r"[0-9]+", done.stdout.split("racing:")[1])]


@pytest.mark.case("B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10")
def test_a_guest_that_lies(tmp_path: Path, shop_in: Callable[[Path], Shop]) -> None:
    """Typed errors, no access outside, no pointer, padding or former result in what it is given."""
    shop = shop_in(tmp_path)
    interface = parse_header(NATIVE / "lies.h", [ROOT / "cafe_lib" / "include"], "c")
    objects = [shop.compile(NATIVE / f"{name}.c", name, RUNTIME) for name in ("lies_inside", "lies_secret")]
    program = shop.link("lies", [*objects, *shop.secret(interface)])
    done = subprocess.run([program, SECONDS], capture_output=True, text=True, check=False)
    assert min(racing(done)) > 100, "of the frames that change all the time, many reach the secret code"
    failed = subprocess.run([program, "0", "must"], capture_output=True, text=True, check=False)
    assert "shim: rt_abort(16)" in failed.stderr, "a guest cannot choose what ends the enclave"


@pytest.mark.case("B04", "B05", "B06", "B08", "B11")
def test_an_enclave_that_lies(tmp_path: Path, shop_in: Callable[[Path], Shop]) -> None:
    """The program's callbacks see whole, private, terminated data, or are not called."""
    shop = shop_in(tmp_path)
    interface = parse_header(NATIVE / "lies.h", [ROOT / "cafe_lib" / "include"], "c")
    main = shop.compile(NATIVE / "lies_serve.c", "lies_serve", GUEST)
    program = shop.link("serve", [main, shop.public(interface)])
    done = subprocess.run([program, SECONDS], capture_output=True, text=True, check=False)
    assert min(racing(done)) > 100
