"""Measures, prints a table, writes build/bench.json, draws docs/explanation/performance.*.

Every figure has its baseline in the same run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from buffers import measure_buffers
from calls import measure_calls, measure_one_core
from cases import measure_cases
from figures import Figure
from idle import SkippedError, measure_idle, measure_thousand
from launch import measure_launch
from loading import measure_loading
from page import write_page
from recover import measure_recover
from rich.console import Console
from rich.table import Table
from start import measure_pool, measure_start
from threads import measure_threads

from cafe_lib.errors import CafeError, KvmError
from hypervisor_agent.enclave.backend import BackendName, choose_backend

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Topic:
    """Figures that are measured together; asked for by its name or by one of theirs."""

    name: str
    figures: tuple[str, ...]
    measure: Callable[[int], list[Figure]]


def _with(backend: BackendName, measure: Callable[..., list[Figure]]) -> Callable[[int], list[Figure]]:
    return lambda runs: measure(choose_backend(backend), runs)


_kvm = partial(_with, "kvm")
_CALLS = (
    *(f"call_{what}_kvm{tail}" for what in ("empty", "64B") for tail in ("", "_p99")),
    "call_64B_kvm_same_bytes",
)
_CASES = ("call_echo_hello", "call_add_with_callback", "call_24KiB_8KiB", "call_large_parameters")
TOPICS = (
    Topic("loading", ("load_100MiB",), measure_loading),
    Topic("calls", _CALLS, _kvm(measure_calls)),
    Topic("one_core", ("call_one_core",), _kvm(measure_one_core)),
    Topic("threads", tuple(f"calls_threads_{count}" for count in (2, 8, 100)), _kvm(measure_threads)),
    Topic("cases", _CASES, _kvm(measure_cases)),
    Topic("buffers", ("buffer_64MiB_in", "buffer_64MiB_in_plain"), _kvm(measure_buffers)),
    Topic("start", ("enclave_start_kvm",), _kvm(measure_start)),
    Topic("pool", ("pool_first_call",), _kvm(measure_pool)),
    Topic("recover", ("recover_fault", "recover_fault_after_error"), _kvm(measure_recover)),
    Topic("idle", ("vmm_rss", "idle_cpu"), _kvm(measure_idle)),
    Topic("thousand", ("idle_1000", "idle_1000_cpu"), _kvm(measure_thousand)),
    Topic("emulator", ("call_64B_emulator",), _with("emulator", measure_calls)),
    Topic("launch", ("launch_local",), measure_launch),
)


def show(figures: list[Figure]) -> None:
    """Print the table."""
    table = Table()
    for column in ("figure", "value", "baseline", "ratio", "limit", "runs", "backend"):
        table.add_column(column, justify="right" if column in ("value", "ratio", "runs") else "left")
    for figure in figures:
        baseline = f"{figure.baseline:.3g} {figure.unit}, {figure.baseline_is}"
        value = f"{figure.value:.4g} {figure.unit}"
        bound = figure.bound
        limit = "" if bound is None else f"{bound.text}: {'met' if bound.met else 'MISSED'}"
        runs = str(figure.runs)
        table.add_row(figure.name, value, baseline, f"{figure.ratio:.2f}", limit, runs, figure.backend)
    Console(width=180).print(table)


def chosen(only: list[str]) -> tuple[Topic, ...]:
    """Return the topics asked for, all if none were; exits with a message if there is no such."""
    known = {name for topic in TOPICS for name in (topic.name, *topic.figures)}
    if unknown := sorted(set(only) - known):
        raise SystemExit(f"no figure or topic {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return tuple(topic for topic in TOPICS if not only or {topic.name, *topic.figures} & set(only))


def measure(topics: tuple[Topic, ...], runs: int) -> Iterator[list[Figure] | Exception]:
    """Measure one topic after the other; one that fails does not keep the others from it."""
    for topic in topics:
        start = time.monotonic()
        try:
            yield topic.measure(runs)
            print(f"measured {topic.name} in {time.monotonic() - start:.0f} s", file=sys.stderr)
        except (KvmError, SkippedError) as reason:
            print(f"{topic.name} is left out: {reason}", file=sys.stderr)
        except (CafeError, OSError, subprocess.CalledProcessError, TimeoutError) as error:
            print(f"{topic.name} failed: {type(error).__name__}: {error}", file=sys.stderr)
            yield error


def main() -> int:
    """Run everything this machine can, or what was asked for; the page is drawn after a whole run only."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="figures or topics")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench.json")
    parser.add_argument("--page", type=Path, help="the folder for performance.md and .svg")
    asked = parser.parse_args()
    results = list(measure(chosen(asked.only), asked.runs))
    figures = [figure for result in results if isinstance(result, list) for figure in result]
    entries = [figure.entry() for figure in figures]
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(entries, indent=1) + "\n")
    show(figures)
    failed = len(figures) == 0 or any(isinstance(result, Exception) for result in results)
    page = asked.page or (None if asked.only or failed else ROOT / "docs" / "explanation")
    if page is not None:
        write_page(page, entries)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
