"""The file in which a worker reports how far it is: `struct hostile_report` of native/hostile.h."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STATUSES: Final = 17  # CAFE_OK to CAFE_E_CALLBACK
FIELDS: Final = 64
_LAYOUT: Final = struct.Struct(f"<8Q{STATUSES}QQ{FIELDS}QQ")
_NAMES: Final = (
    "index",
    "entry",
    "total",
    "rewrites",
    "callbacks",
    "nested",
    "fetched_bytes",
    "ended",
)
_COUNTS: Final = len(_NAMES)
_FIELD_COUNT: Final = _COUNTS + STATUSES


@dataclass(frozen=True, slots=True)
class Progress:
    """What a worker has done; ``fields`` are the words of the input it is at, in the parameters' order."""

    index: int = 0
    entry: int = 0
    total: int = 0
    rewrites: int = 0
    callbacks: int = 0
    nested: int = 0
    fetched_bytes: int = 0
    ended: int = 0
    statuses: tuple[int, ...] = (0,) * STATUSES
    fields: tuple[int, ...] = ()
    done: bool = False

    @property
    def inputs(self) -> int:
        """Inputs that came to an end, whatever the end was."""
        return sum(self.statuses)

    @classmethod
    def parse(cls, data: bytes) -> Progress:
        """Read a report's bytes; while the worker runs, its parts may be of different moments."""
        words = _LAYOUT.unpack(data[: _LAYOUT.size])
        count = min(words[_FIELD_COUNT], FIELDS)
        first = _FIELD_COUNT + 1
        counts = dict(zip(_NAMES, words[:_COUNTS], strict=True))
        return cls(
            **counts,
            statuses=words[_COUNTS:_FIELD_COUNT],
            fields=words[first : first + count],
            done=words[-1] == 1,
        )


class ReportFile:
    """A mapped report."""

    def __init__(self, view: mmap.mmap) -> None:
        self._view = view

    def read(self) -> Progress:
        """Take a snapshot."""
        return Progress.parse(self._view[: _LAYOUT.size])


@contextmanager
def report_file(path: Path) -> Iterator[ReportFile]:
    """Make an empty report at ``path`` and map it."""
    with path.open("w+b") as file:
        file.truncate(_LAYOUT.size)
        with mmap.mmap(file.fileno(), _LAYOUT.size) as view:
            yield ReportFile(view)
