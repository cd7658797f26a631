"""How commands speak: results on stdout (text or JSON), progress and errors on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

from cafe_lib.errors import CafeError

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Show the present step while it lasts, on a terminal only."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _step: None
        return
    with console.status("") as status:
        yield status.update


def print_result(result: Mapping[str, object], *, as_json: bool) -> None:
    """Print a result: one line per key, or one JSON object."""
    if as_json:
        typer.echo(json.dumps(result))
        return
    width = max(len(key) for key in result)
    for key, value in result.items():
        lines = [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]
        separator = "\n" + " " * (width + 2)
        typer.echo(f"{key.replace('_', ' '):{width}}  {separator.join(lines)}")


def print_error(error: CafeError, *, as_json: bool) -> None:
    """Say what failed and what to do about it."""
    if as_json:
        typer.echo(json.dumps({"error": {"code": error.code, "detail": error.detail, "hint": error.hint}}))
    typer.echo(f"error: {error.detail}", err=True)
    if error.hint:
        typer.echo(f"hint: {error.hint}", err=True)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    typer.echo(f"warning: {text}", err=True)
