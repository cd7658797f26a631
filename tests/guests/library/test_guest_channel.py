"""The guest's checks of a channel: any header page is refused or safe to use."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.guests.library.conftest import Shop

ROOT = Path(__file__).resolve().parents[3]
NATIVE = Path(__file__).resolve().parent / "native"


@pytest.mark.case("B11", "B12")
def test_any_header_page_is_refused_or_safe(tmp_path: Path, shop_in: Callable[[Path], Shop]) -> None:
    shop = shop_in(tmp_path)
    main = shop.compile(NATIVE / "headers.c", "headers", f"-I{ROOT}/cafe_lib/guest")
    done = subprocess.run(
        [shop.link("headers", [main, *shop.guest()])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("accepted ")
