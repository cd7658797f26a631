"""The same calls under CAFE and under Hyperlight, on one machine: see compare_hyperlight.md.

Reads what Hyperlight's own benchmarks have written, measures ours, and prints and writes both.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cases import measure_cases
from figures import Figure, cpu
from rich.console import Console
from rich.table import Table

from hypervisor_agent.enclave.backend import choose_backend

_OUT = Path(__file__).resolve().parent.parent / "build" / "compare_hyperlight.json"
_NANOSECONDS = {"ns": 1.0, "us": 1e3, "ms": 1e6}
_THEIRS = {
    "call_echo_hello": ("guest_functions/guest_call", "guest_calls/call/default"),
    "call_add_with_callback": (
        "guest_functions/guest_call_with_call_to_host_function",
        "guest_calls/call_with_host_function/default",
    ),
    "call_24KiB_8KiB": ("sample_workloads/24K_in_8K_out_c", "sample_workloads/24K_in_8K_out_rust"),
    "call_large_parameters": ("guest_functions_with_large_parameters/guest_call_with_large_parameters",),
}
"""Ours, and what their releases have called the same shape."""


def read_criterion(checkout: Path) -> dict[str, float]:
    """Return the medians in ns, by full name, of the last run of a checkout's benchmarks.

    Criterion keeps each in ``target/criterion/.../new``: its name in benchmark.json, the estimates beside it.
    """
    found = {}
    for path in sorted(checkout.glob("target/criterion/**/new/benchmark.json")):
        name = json.loads(path.read_text())["full_id"]
        estimates = json.loads(path.with_name("estimates.json").read_text())
        found[name] = float(estimates["median"]["point_estimate"])
    return found


def commit_of(checkout: Path) -> str:
    """Return which commit was measured; "unknown" where it is no git repository."""
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def compare(figures: Sequence[Figure], theirs: dict[str, float]) -> list[dict[str, Any]]:
    """Pair our figures with theirs; a case that they have not measured stands alone."""
    rows = []
    for figure in figures:
        ours = figure.value * _NANOSECONDS[figure.unit]
        named = {name: theirs[name] for name in _THEIRS[figure.name] if name in theirs}
        ratios = {name: nanoseconds / ours for name, nanoseconds in named.items()}
        rows.append({"case": figure.name, "cafe_ns": ours, "hyperlight_ns": named, "times": ratios})
    return rows


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table("case", "CAFE, ns", "Hyperlight's name", "Hyperlight, ns", "Hyperlight / CAFE")
    for row in rows:
        for name, nanoseconds in (row["hyperlight_ns"] or {"": None}).items():
            theirs = ("not measured", "") if nanoseconds is None else (f"{nanoseconds:.0f}",)
            ratio = () if nanoseconds is None else (f"{row['times'][name]:.1f}",)
            table.add_row(row["case"], f"{row['cafe_ns']:.0f}", name, *theirs, *ratio)
    Console(width=140).print(table)


def main() -> int:
    """Compare, and say on which machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="of Hyperlight, its benchmarks run")
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    theirs = read_criterion(asked.checkout)
    if not theirs:
        print(f"{asked.checkout} has no results; run its benchmarks first", file=sys.stderr)
        return 1
    backend = choose_backend("kvm")
    rows = compare(measure_cases(backend, asked.runs), theirs)
    machine = {"cpu": cpu(), "kernel": platform.release(), "backend": backend.name}
    result = {**machine, "hyperlight_commit": commit_of(asked.checkout), "cases": rows}
    _OUT.parent.mkdir(exist_ok=True)
    _OUT.write_text(json.dumps(result, indent=1) + "\n")
    print(", ".join(f"{name}: {value}" for name, value in machine.items()))
    _show(rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
