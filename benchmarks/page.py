"""docs/explanation/performance.md and .svg, from the entries of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from plot import Entry, draw

_HOW = Path(__file__).resolve().parent / "measured.md"


def _row(entry: Entry) -> str:
    bound = entry["bound"]
    limit = "" if bound is None else f"{bound['text']}: {'met' if bound['met'] else '**missed**'}"
    value = f"{entry['value']:.3g} {entry['unit']}"
    baseline = f"{entry['baseline']:.3g} {entry['unit']}: {entry['baseline_is']}"
    cells = (f"`{entry['name']}`", value, baseline, f"{entry['ratio']:.2f}", limit, entry["note"])
    return f"| {' | '.join(cells)} |"


def _lines(entries: Sequence[Entry]) -> Iterator[str]:
    yield "# Performance"
    yield ""
    yield (
        "`make bench` wrote this page and the plot, from one run. Every figure stands beside a baseline "
        "that was measured in the same run, in turn with it: compare the ratios, not the times."
    )
    yield ""
    yield f"The machine of this run: {entries[0]['cpu']}, Linux {entries[0]['kernel']}."
    yield ""
    yield "![Each figure against its limit and its baseline](performance.svg)"
    yield ""
    yield "| figure | value | baseline | ratio | limit | what |"
    yield "|---|---|---|---|---|---|"
    yield from map(_row, entries)
    yield ""
    yield _HOW.read_text().strip()


def write_page(folder: Path, entries: Sequence[Entry]) -> None:
    """Write both files into ``folder``; there must be at least one entry."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "performance.svg").write_text(draw(entries))
    (folder / "performance.md").write_text("\n".join(_lines(entries)) + "\n")
