"""`cafe symbolize`: where in the sources a secret function crashed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cafe_lib.cli.console import JsonOption
from cafe_lib.cli.output import Rows, show
from cafe_lib.client.problems import printable

if TYPE_CHECKING:
    from cafe_lib.toolchain.symbolize import Symbolized


def symbolize(
    build: Annotated[Path, typer.Argument(metavar="BUILD_DIR", help="Where `cafe build` put its results.")],
    reports: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[REPORT]...", help="BUILD_ID+0xOFFSET, or the agent's JSON; standard input by default."
        ),
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Turn crash reports into functions and lines, on the machine that built the release."""
    from cafe_lib.toolchain.symbolize import Symbolizer, parse_reports  # noqa: PLC0415 - pyelftools: slow

    symbolizer = Symbolizer(build)
    found = symbolizer.explain(parse_reports(reports or sys.stdin))
    if as_json:
        show(Rows((), [describe_crash(one) for one in found]), as_json=True)
        return
    for one in found:
        typer.echo("\n".join(render_crash(one)))


def describe_crash(one: Symbolized) -> dict[str, object]:
    """Return one explained report for programs."""
    return {
        "build_id": one.report.build_id,
        "image_offset": one.report.offset,
        "frames": [
            {"function": frame.function, "file": frame.file, "line": frame.line} for frame in one.frames
        ],
    }


def render_crash(one: Symbolized) -> list[str]:
    """Return one explained report as lines: the innermost function first."""
    place = "an unknown place" if one.report.offset is None else f"{one.report.offset:#x}"
    lines = [f"{one.report.build_id[:16]}+{place}"]
    for number, frame in enumerate(one.frames):
        what = f"{frame.function} at {frame.place}" if frame.place else frame.function
        lines.append(f"  {'in' if number == 0 else 'inlined into'} {printable(what)}")
    if not one.frames and one.report.offset is not None:
        lines.append("  in no function of this image")
    return lines
