"""A fresh SBS for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sbs_site


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[sbs_site.Site]:
    async with sbs_site.opened(tmp_path) as opened:
        yield opened
