"""The secret stubs against a hostile guest: bad, random and racing frames, under ASan and UBSan."""

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


@pytest.mark.case("B04", "B05", "B06", "B07", "B08")
def test_frames_that_lie_and_change(tmp_path: Path, shop_in: Callable[[Path], Shop]) -> None:
    """Typed errors, no byte outside the slot, and data that keeps still while the secret code runs."""
    shop = shop_in(tmp_path)
    interface = parse_header(NATIVE / "race.h", [ROOT / "cafe_lib" / "include"], "c")
    objects = [*shop.secret(interface), shop.compile(NATIVE / "race.c", "race", f"-I{ROOT}/cafe_lib/runtime")]
    done = subprocess.run([shop.link("race", objects), "3"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("all good\n")
    racing = re.search(r"racing: ([0-9]+) frames, ([0-9]+) calls, ([0-9]+) rewrites", done.stdout)
    assert racing is not None
    frames, calls, rewrites = map(int, racing.groups())
    assert rewrites >= 10**7
    assert min(frames, calls) > 1000, "of the frames that change all the time, many reach the secret code"
