"""One measured figure, the limit that was asked for, and what the machine was."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Bound:
    """A limit in words, and how much of it was used: more than 1 misses it."""

    text: str
    used: float

    @property
    def met(self) -> bool:
        """Whether the figure keeps to it."""
        return self.used <= 1


Limit = Callable[[float, float], Bound]
"""From value and baseline to how much of the limit is used."""


def ratio_at_most(times: float) -> Limit:
    """At most so many baselines."""
    return lambda value, baseline: Bound(f"at most {times:g} baselines", value / baseline / times)


def ratio_at_least(times: float) -> Limit:
    """At least so many baselines."""
    return lambda value, baseline: Bound(f"at least {times:g} baselines", times * baseline / value)


def value_at_most(most: float, unit: str) -> Limit:
    """At most so much, whatever the baseline is."""
    return lambda value, _: Bound(f"at most {most:g} {unit}", value / most)


def over_at_most(most: float, unit: str) -> Limit:
    """At most so much more than the baseline."""
    text = f"at most {most:g} {unit} over the baseline"
    return lambda value, baseline: Bound(text, max(0.0, value - baseline) / most)


def both(first: Bound, second: Bound) -> Bound:
    """Two limits for one figure: the one that is nearer counts."""
    return Bound(f"{first.text}; {second.text}", max(first.used, second.used))


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
    bound: Bound | None = None

    @property
    def ratio(self) -> float:
        """How many baselines it is."""
        return self.value / self.baseline

    def within(self, limit: Limit) -> Figure:
        """Return it with the limit that it has to keep to."""
        return replace(self, bound=limit(self.value, self.baseline))

    def entry(self) -> dict[str, object]:
        """Return what stands in build/bench.json."""
        machine = {"ratio": self.ratio, "cpu": cpu(), "kernel": platform.release()}
        bound = self.bound and {"text": self.bound.text, "used": self.bound.used, "met": self.bound.met}
        return {**asdict(self), "bound": bound, **machine}


def median_figure(
    name: str,
    unit: str,
    pairs: Sequence[tuple[float, float]],
    baseline_is: str,
    *,
    backend: str,
    note: str = "",
) -> Figure:
    """Make a figure from (value, baseline) pairs measured one after the other."""
    value = statistics.median(value for value, _ in pairs)
    baseline = statistics.median(baseline for _, baseline in pairs)
    return Figure(name, value, unit, baseline, baseline_is, len(pairs), backend, note)


def middle_pair(
    name: str,
    unit: str,
    pairs: Sequence[tuple[float, float]],
    baseline_is: str,
    *,
    backend: str,
    note: str = "",
) -> Figure:
    """Make a figure of the pair whose ratio is the median: a machine may change speed from pair to pair."""
    value, baseline = sorted(pairs, key=lambda pair: pair[0] / pair[1])[len(pairs) // 2]
    return Figure(name, value, unit, baseline, baseline_is, len(pairs), backend, note)


def cpu() -> str:
    """Return the CPU's name and how many of it there are."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0] if names else platform.machine()}"
