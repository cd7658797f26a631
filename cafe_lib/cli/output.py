"""What a command found: a table, lines, or JSON. Text from the network cannot steer a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cafe_lib.cli.console import print_result
from cafe_lib.client.problems import printable

_NO_TERMINAL_COLUMNS: Final = 2000


@dataclass(frozen=True, slots=True)
class Record:
    """One object."""

    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Rows:
    """A list of objects; a table shows ``columns`` of them, JSON shows all."""

    columns: Sequence[str]
    items: Sequence[Mapping[str, object]]


Result = Record | Rows


def show(result: Result, *, as_json: bool) -> None:
    """Print a result on stdout: JSON is one line, a list of objects or an object."""
    if isinstance(result, Record):
        values = result.values if as_json else {key: cell(value) for key, value in result.values.items()}
        print_result(values, as_json=as_json)
    elif as_json:
        typer.echo(json.dumps(list(result.items)))
    else:
        _print_table(result)


def cell(value: object) -> str:
    """Return a value as one line of printable text."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(cell(item) for item in value)
    return printable(json.dumps(value) if isinstance(value, dict) else str(value), 100_000)


def _print_table(rows: Rows) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in rows.columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for item in rows.items:
        table.add_row(*(Text(cell(item.get(column))) for column in rows.columns))
    console = Console()
    if not console.is_terminal:
        console = Console(width=_NO_TERMINAL_COLUMNS)  # whole ids for grep and cut
    console.print(table)
