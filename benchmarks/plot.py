"""The figures of a run as one SVG: how much of each limit is used, and how many baselines the others are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

Entry = Mapping[str, Any]
"""One of build/bench.json."""

_WIDTH, _LEFT, _RIGHT, _ROW, _HEAD, _FOOT = 860, 230, 130, 22, 46, 34
_BAR = 14
_LOW, _HIGH = 0.01, 100.0
"""Of the axis, which is logarithmic; what lies beyond ends at the edge."""
_GOOD, _MISSED, _NEUTRAL = "#2f6f4f", "#b5342a", "#9aa5b1"
_STYLE = (
    "<style>text{fill:#1b1f24}line{stroke:#9aa5b1;stroke-opacity:.4}line.one{stroke:#1b1f24;stroke-opacity:1}"
    "@media (prefers-color-scheme:dark){text{fill:#e6e9ed}line.one{stroke:#e6e9ed}}</style>"
)


def _x(value: float) -> float:
    at = math.log(min(max(value, _LOW), _HIGH) / _LOW) / math.log(_HIGH / _LOW)
    return _LEFT + at * (_WIDTH - _LEFT - _RIGHT)


def _text(x: float, y: float, words: str, *, anchor: str = "start", weight: str = "normal") -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'


def _line(x: float, top: float, bottom: float, *, one: bool) -> str:
    kind = ' class="one"' if one else ""
    return f'<line{kind} x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'


def _bar(y: float, name: str, value: float, label: str, colour: str) -> list[str]:
    width = max(_x(value) - _LEFT, 1.0)
    shape = f'<rect x="{_LEFT}" y="{y:.1f}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>'
    base = y + _BAR - 3
    return [_text(_LEFT - 8, base, name, anchor="end"), shape, _text(_LEFT + width + 6, base, label)]


def _panel(top: float, title: str, one: str, bars: Sequence[tuple[str, float, str, str]]) -> list[str]:
    """Draw bars below a title; ``one`` says what 1 on the axis is."""
    start, end = top + _HEAD - 8, top + _HEAD + len(bars) * _ROW
    parts = [_text(16, top + 22, title, weight="bold")]
    for power in range(-2, 3):
        parts.append(_line(_x(10.0**power), start, end, one=power == 0))
        label = one if power == 0 else f"{10.0**power:g}"
        parts.append(_text(_x(10.0**power), end + 16, label, anchor="middle"))
    for index, bar in enumerate(bars):
        parts += _bar(top + _HEAD + index * _ROW, *bar)
    return parts


def _limits(entries: Sequence[Entry]) -> list[tuple[str, float, str, str]]:
    bars = []
    for entry in entries:
        if entry["bound"] is not None:
            used, met = entry["bound"]["used"], entry["bound"]["met"]
            label = f"{used:.2f}" if met else f"{used:.2f}, missed"
            bars.append((entry["name"], used, label, _GOOD if met else _MISSED))
    return bars


def _baselines(entries: Sequence[Entry]) -> list[tuple[str, float, str, str]]:
    free = [entry for entry in entries if entry["bound"] is None]
    return [(entry["name"], entry["ratio"], f"{entry['ratio']:.2f}", _NEUTRAL) for entry in free]


def draw(entries: Sequence[Entry]) -> str:
    """Return the SVG."""
    limits, baselines = _limits(entries), _baselines(entries)
    second = _HEAD + _FOOT + len(limits) * _ROW
    height = second + _HEAD + _FOOT + len(baselines) * _ROW
    parts = [
        *_panel(0, "How much of its limit each figure uses: left of the line it is met", "limit", limits),
        *_panel(second, "Figures without a limit, as a multiple of their baseline", "baseline", baselines),
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" font-family="system-ui, sans-serif" font-size="12" role="img">'
    )
    title = "<title>CAFE: measured figures against their limits and baselines</title>"
    return "\n".join([head, title, _STYLE, *parts, "</svg>"]) + "\n"
