"""The benchmarks run and say what they must; how fast anything is, no test asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
CALLS = {
    "call_empty_kvm",
    "call_empty_kvm_p99",
    "call_64B_kvm",
    "call_64B_kvm_p99",
    "call_64B_kvm_same_bytes",
}
FIELDS = {"name", "value", "unit", "baseline", "baseline_is", "ratio", "runs", "backend", "note", "bound"}

needs_kvm = pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="no /dev/kvm")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a test import what benchmarks/ holds, as its scripts do."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


def measure(folder: Path, *only: str) -> dict[str, dict[str, object]]:
    output = folder / "bench.json"
    command = [sys.executable, BENCHMARKS / "run.py", "--runs", "1", "--output", output, "--page", folder]
    done = subprocess.run([*command, "--only", *only], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {entry["name"]: entry for entry in json.loads(output.read_text())}


def expect_sound(entries: dict[str, dict[str, object]], names: set[str]) -> None:
    assert set(entries) == names
    for entry in entries.values():
        assert set(entry) >= {*FIELDS, "cpu", "kernel"}
        assert entry["value"] > 0
        assert entry["baseline"] > 0
        assert entry["ratio"] == pytest.approx(entry["value"] / entry["baseline"])
        assert entry["runs"] >= 1
        bound = entry["bound"]
        assert bound is None or (bound["text"] and bound["met"] == (bound["used"] <= 1))


@pytest.mark.slow
@needs_kvm
def test_calls_are_measured_and_drawn(tmp_path: Path) -> None:
    entries = measure(tmp_path, "calls", "call_one_core", "pool_first_call")
    expect_sound(entries, {*CALLS, "call_one_core", "pool_first_call"})
    assert entries["call_64B_kvm_same_bytes"]["bound"] is None
    assert {name for name, entry in entries.items() if entry["bound"]} >= {"call_one_core", "call_empty_kvm"}
    page = (tmp_path / "performance.md").read_text()
    ET.parse(tmp_path / "performance.svg")  # noqa: S314 -- our own
    assert all(f"`{name}`" in page for name in entries)


@pytest.mark.slow
def test_the_emulator_is_measured_without_kvm(tmp_path: Path) -> None:
    expect_sound(measure(tmp_path, "call_64B_emulator"), {"call_64B_emulator"})


def test_an_unknown_figure_is_named() -> None:
    command = [sys.executable, BENCHMARKS / "run.py", "--only", "call_of_nature"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no figure or topic call_of_nature" in done.stderr


@pytest.mark.usefixtures("modules")
def test_a_plot_shows_every_figure_and_says_which_missed_its_limit() -> None:
    from figures import Figure, over_at_most, ratio_at_least, ratio_at_most  # noqa: PLC0415 -- see the fixture
    from plot import draw  # noqa: PLC0415

    figures = [
        Figure("free & easy", 0.0, "ns", 2.0, "b", 1, "none"),
        Figure("slow", 10.0, "ns", 2.0, "b", 1, "none").within(ratio_at_most(3)),
        Figure("quick", 10.0, "GB/s", 2.0, "b", 1, "none").within(ratio_at_least(0.6)),
        Figure("near", 210.0, "us", 20.0, "b", 1, "none").within(over_at_most(200, "us")),
    ]
    drawn = ET.fromstring(draw([each.entry() for each in figures]))  # noqa: S314 -- our own
    texts = [node.text for node in drawn.iter() if node.text]
    assert {"free & easy", "slow", "quick", "near"} <= set(texts)
    assert [text for text in texts if text.endswith("missed")] == ["1.67, missed"]
    assert "0.95" in texts


@pytest.mark.usefixtures("modules")
def test_criterions_results_are_paired_with_ours(tmp_path: Path) -> None:
    from compare_hyperlight import compare, read_criterion  # noqa: PLC0415 -- see the fixture
    from figures import Figure  # noqa: PLC0415

    for name, nanoseconds in (("guest_calls/call/default", 5000.0), ("sandboxes/create", 1.0)):
        folder = tmp_path / "target" / "criterion" / name.replace("/", "_") / "new"
        folder.mkdir(parents=True)
        (folder / "benchmark.json").write_text(json.dumps({"full_id": name}))
        estimates = {"median": {"point_estimate": nanoseconds}}
        (folder / "estimates.json").write_text(json.dumps(estimates))
    ours = [Figure(name, 2.0, "us", 1.0, "b", 1, "kvm") for name in ("call_echo_hello", "call_24KiB_8KiB")]
    echo, other = compare(ours, read_criterion(tmp_path))
    assert echo["times"] == {"guest_calls/call/default": 2.5}
    assert other["hyperlight_ns"] == {}
