"""Measures, prints a table, writes build/bench.json; every figure has its baseline in the same run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from boundary import measure_boundary
from figures import Figure
from launch import measure_launch
from loading import measure_loading
from rich.console import Console
from rich.table import Table

from cafe_lib.errors import KvmError
from hypervisor_agent.enclave.backend import choose_backend

OUT = Path(__file__).resolve().parent.parent / "build" / "bench.json"


def show(figures: list[Figure]) -> None:
    """Print the table."""
    table = Table()
    for column in ("figure", "value", "baseline", "ratio", "runs", "backend"):
        table.add_column(column, justify="left" if column in ("figure", "baseline", "backend") else "right")
    for figure in figures:
        baseline = f"{figure.baseline:.3g} {figure.unit}, {figure.baseline_is}"
        value = f"{figure.value:.4g} {figure.unit}"
        table.add_row(figure.name, value, baseline, f"{figure.ratio:.2f}", str(figure.runs), figure.backend)
    Console(width=140).print(table)


def main() -> int:
    """Run everything this machine can."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    figures = [measure_loading(runs)]
    try:
        figures += measure_boundary(choose_backend("kvm"), runs)
    except KvmError as error:
        print(f"no figures under KVM: {error}", file=sys.stderr)
    figures += measure_boundary(choose_backend("emulator"), runs)
    figures += measure_launch(runs)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps([figure.entry() for figure in figures], indent=1) + "\n")
    show(figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
