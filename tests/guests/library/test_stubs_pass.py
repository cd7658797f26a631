"""A program's structs, large buffers and callbacks through both stubs, in C and C++."""

from __future__ import annotations

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


@pytest.mark.parametrize("language", ["c", "c++"])
@pytest.mark.case("B09", "B14")
def test_everything_that_can_be_passed(
    tmp_path: Path, shop_in: Callable[[Path], Shop], language: str
) -> None:
    """What comes back is what was computed; a callback's failure is its error value and nothing else."""
    shop = shop_in(tmp_path)
    interface = parse_header(NATIVE / "pass.h", [ROOT / "cafe_lib" / "include"], language)
    flags = ("-xc++",) if language == "c++" else ()
    secret = shop.compile(NATIVE / "pass_inside.c", "pass_inside", *flags)
    main = shop.compile(NATIVE / "pass.c", "pass", *flags)
    program = shop.loopback(interface, [secret], [main])
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "all good\n"), done.stderr
