"""One measured figure, and what the machine was."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """``ratio`` is value / baseline, both medians of the same run."""

    name: str
    value: float
    unit: str
    baseline: float
    baseline_is: str
    runs: int
    backend: str
    note: str = ""

    @property
    def ratio(self) -> float:
        """How many baselines it is."""
        return self.value / self.baseline

    def entry(self) -> dict[str, object]:
        """Return what stands in build/bench.json."""
        return {**asdict(self), "ratio": self.ratio, "cpu": cpu(), "kernel": platform.release()}


def median_figure(
    name: str, unit: str, pairs: Sequence[tuple[float, float]], baseline_is: str, **more: str
) -> Figure:
    """Make a figure from (value, baseline) pairs measured one after the other."""
    value = statistics.median(value for value, _ in pairs)
    baseline = statistics.median(baseline for _, baseline in pairs)
    return Figure(name, value, unit, baseline, baseline_is, len(pairs), more.pop("backend", "kvm"), **more)


def cpu() -> str:
    """Return the CPU's name and how many of it there are."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0] if names else platform.machine()}"
