"""Draws a bar chart as SVG: the same bytes for the same numbers, readable in light and in dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _LEFT, _RIGHT, _ROW, _BAR, _TOP = 860, 250, 130, 34, 20, 64
_FONT = "font-family='system-ui, sans-serif'"
_COLOURS = {True: "#2f6f4f", False: "#9aa5b1"}
_STYLE = "<style>text{fill:#1b1f24}@media (prefers-color-scheme:dark){text{fill:#e6e9ed}}</style>"


@dataclass(frozen=True, slots=True)
class Bar:
    """``label`` on the left, ``text`` behind the bar; ``ours`` are coloured."""

    label: str
    value: float
    text: str
    ours: bool = False


def draw_bars(title: str, bars: Sequence[Bar], note: str) -> str:
    """Return the SVG document; values are on one linear scale from 0."""
    most = max((bar.value for bar in bars), default=1) or 1
    height = _TOP + _ROW * len(bars) + 40
    head = f"xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {height}' role='img'"
    parts = [
        f"<svg {head} aria-label='{escape(title, quote=True)}'>",
        _STYLE,
        f"<text x='16' y='32' {_FONT} font-size='18' font-weight='600'>{escape(title)}</text>",
    ]
    for number, bar in enumerate(bars):
        parts += _row(bar, _TOP + number * _ROW, most)
    parts.append(f"<text x='16' y='{height - 14}' {_FONT} font-size='12'>{escape(note)}</text>")
    return "\n".join([*parts, "</svg>", ""])


def _row(bar: Bar, top: int, most: float) -> list[str]:
    length = max(2.0, (_WIDTH - _LEFT - _RIGHT) * bar.value / most)
    text = f"y='{top + _BAR - 5}' {_FONT} font-size='14'"
    box = f"width='{length:.1f}' height='{_BAR}' rx='3' fill='{_COLOURS[bar.ours]}'"
    return [
        f"<text x='{_LEFT - 10}' text-anchor='end' {text}>{escape(bar.label)}</text>",
        f"<rect x='{_LEFT}' y='{top}' {box}/>",
        f"<text x='{_LEFT + length + 8:.1f}' {text}>{escape(bar.text)}</text>",
    ]
