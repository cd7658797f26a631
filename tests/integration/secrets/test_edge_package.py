"""A package that was changed on its way to an enclave: refused before a process is taken."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from cafe_lib.errors import CafeError
from cafe_lib.toolchain.build import BuildResult
from hypervisor_agent.enclave.enclave import Enclave
from hypervisor_agent.enclave.process import SparePool

Build = Callable[[Path], BuildResult]
LaunchPackage = Callable[[BuildResult], Enclave]

KIT = Path(__file__).parent / "edge_kit"
FLIPS = 60


def _flipped(data: bytes) -> list[bytes]:
    """Return copies with one bit changed: in every part of the head, in each chunk, in the last byte."""
    source = random.Random(7)  # noqa: S311 - test data
    places = {*range(16), len(data) - 1, *range(200, 2000, 100)}
    places |= {source.randrange(len(data)) for _ in range(FLIPS)}
    changed = []
    for place in sorted(place for place in places if place < len(data)):
        copy = bytearray(data)
        copy[place] ^= 1 << source.randrange(8)
        changed.append(bytes(copy))
    return changed


def _cut(data: bytes) -> list[bytes]:
    """Return beginnings, and ones with more after the end or moved by a part."""
    lengths = (0, 8, 200, len(data) // 2, len(data) - 4096, len(data) - 1)
    parts = [data[:length] for length in lengths]
    return [*parts, data + b"\0", data + data, data[:-8192] + data[-4096:], data[4096:], data[::-1]]


@pytest.fixture
def refuse_processes(pool: SparePool, monkeypatch: pytest.MonkeyPatch) -> None:
    def take() -> NoReturn:
        raise AssertionError("something was about to run")

    monkeypatch.setattr(pool, "take", take)


@pytest.mark.case("C01", "C06")
@pytest.mark.parametrize("change", [_flipped, _cut])
def test_changed_package_runs_nothing(
    build: Build,
    launch_package: LaunchPackage,
    refuse_processes: None,
    tmp_path: Path,
    change: Callable[[bytes], list[bytes]],
) -> None:
    built = build(KIT)
    path = tmp_path / "changed.cafe"
    for data in change(built.package.read_bytes()):
        path.write_bytes(data)
        with pytest.raises(CafeError) as refused:
            launch_package(replace(built, package=path))
        assert refused.value.code


@pytest.mark.case("C01", "C06")
def test_the_package_itself_runs(build: Build, launch_package: LaunchPackage) -> None:
    """What the others are changed copies of."""
    enclave = launch_package(build(KIT))
    assert enclave.wait(0) is None
    enclave.destroy()
