"""Results on the screen and as JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cafe_lib.cli.output import Record, Rows, cell, show

HOSTILE = "[red]x[/red]\x1b[2J\r\nsecond line"


def test_rows_as_json_keep_everything(capsys: pytest.CaptureFixture[str]) -> None:
    items = [{"id": "1", "name": HOSTILE, "more": [1, None]}]
    show(Rows(("id",), items), as_json=True)
    text = capsys.readouterr().out
    assert json.loads(text) == items
    assert text.count("\n") == 1
    assert "\x1b" not in text


def test_a_table_shows_whole_ids_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(Rows(("id", "seats_used"), [{"id": "a" * 300, "seats_used": None}]), as_json=False)
    text = capsys.readouterr().out
    assert "a" * 300 in text
    assert "seats used" in text
    assert "-" in text


def test_hostile_text_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show(Rows(("name",), [{"name": HOSTILE}]), as_json=False)
    show(Record({"name": HOSTILE}), as_json=False)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert text.count("[red]x[/red]") == 2
    assert not [line for line in text.split("\n") if line.startswith("second")]


def test_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    show(Rows(("name",), []), as_json=True)
    assert capsys.readouterr().out == "[]\n"


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(_values)
def test_any_value_is_one_printable_line(value: object) -> None:
    assert cell(value).isprintable()
