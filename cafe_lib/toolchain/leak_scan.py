"""Finds many patterns in a large file at memory speed: a filter on the first bytes, then exact comparison."""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cafe_lib.toolchain.leak_patterns import WORD_BYTES, Words, row_views

BLOCK_BYTES = 128 << 10  # the working set stays in the second-level cache
FILTER_BITS = 20
MIXER = 0x9E3779B97F4A7C15
PREFIX_BYTES = 4
IDENTIFIER = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$")

Data = bytes | mmap.mmap


class _Filter:
    """Tells quickly where one of some words (of 4 or 8 bytes) may begin."""

    def __init__(self, words: NDArray[Any]) -> None:
        self.bytes = words.dtype.itemsize
        self.mixer = words.dtype.type(MIXER >> (64 - 8 * self.bytes) | 1)
        self.shift = words.dtype.type(8 * self.bytes - FILTER_BITS)
        self.present = np.zeros(1 << FILTER_BITS, np.bool_)
        self.present[(words * self.mixer) >> self.shift] = True
        self.mixed = np.empty(BLOCK_BYTES, words.dtype)
        self.flags = np.empty(BLOCK_BYTES, np.bool_)

    def near(self, words: NDArray[Any]) -> NDArray[np.int64]:
        """Pick the indices of ``words``, at most a block, that may be wanted."""
        mixed, flags = self.mixed[: len(words)], self.flags[: len(words)]
        np.multiply(words, self.mixer, out=mixed)
        np.right_shift(mixed, self.shift, out=mixed)
        np.take(self.present, mixed.astype(np.int64, copy=False), out=flags, mode="clip")
        return np.flatnonzero(flags)


def find_rows(tables: list[tuple[int, Words]], data: Data) -> Iterator[tuple[int, int, int]]:
    """Find rows of words in ``data``: table, row, offset. A table is a window's length and its rows."""
    used = [table for table in tables if len(table[1])]
    if not used:
        return
    first = _Filter(np.concatenate([rows[:, 0] for _, rows in used]))
    sums = [_ordered(rows) for _, rows in tables]
    for start in range(0, max(len(data) - WORD_BYTES + 1, 0), BLOCK_BYTES):
        block = data[start : start + BLOCK_BYTES + 2 * WORD_BYTES + WORD_BYTES - 1]
        near = first.near(row_views(block, WORD_BYTES, 1)[0][:BLOCK_BYTES])
        for number, (length, rows) in enumerate(tables if len(near) else ()):
            for offset, row in _exact(block, near, length, rows, sums[number]):
                yield number, row, start + offset


def _ordered(rows: Words) -> tuple[Words, NDArray[np.int64]]:
    sums = _mix(list(rows.T))
    order = np.argsort(sums, kind="stable")
    return sums[order], order


def _exact(
    block: bytes, near: NDArray[np.int64], length: int, rows: Words, sums: tuple[Words, NDArray[np.int64]]
) -> Iterator[tuple[int, int]]:
    views = row_views(block, length, length // WORD_BYTES)
    ordered, order = sums
    if not views or not len(rows):
        return
    near = near[near < len(views[0])]
    mixed = _mix([view[near] for view in views])
    at = np.searchsorted(ordered, mixed)
    at[at == len(ordered)] = 0
    same = ordered[at] == mixed
    for offset, row in zip(near[same], order[at[same]], strict=True):
        if all(view[offset] == word for view, word in zip(views, rows[row], strict=True)):
            yield int(offset), int(row)


def _mix(columns: list[Words]) -> Words:
    total = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        total = (total ^ column) * np.uint64(MIXER)
        total ^= total >> np.uint64(29)
    return total


def find_texts(texts: Collection[bytes], data: Data) -> Iterator[tuple[int, bytes]]:
    """Find where texts of at least 4 bytes stand in ``data``."""
    long = [text for text in texts if len(text) >= WORD_BYTES]
    yield from _find_by_start(long, WORD_BYTES, data)
    yield from _find_by_start([text for text in texts if len(text) < WORD_BYTES], PREFIX_BYTES, data)


def _find_by_start(texts: list[bytes], prefix: int, data: Data) -> Iterator[tuple[int, bytes]]:
    starts: dict[bytes, list[bytes]] = {}
    for text in texts:
        starts.setdefault(text[:prefix], []).append(text)
    if not starts:
        return
    words = np.frombuffer(b"".join(starts), f"<u{prefix}")
    first = _Filter(words)
    for start in range(0, max(len(data) - prefix + 1, 0), BLOCK_BYTES):
        block = data[start : start + BLOCK_BYTES + prefix - 1]
        view: NDArray[Any] = np.ndarray((len(block) - prefix + 1,), words.dtype, block, 0, (1,))
        near = first.near(view)
        for offset in near[np.isin(view[near], words)]:
            place = start + int(offset)
            for text in starts[data[place : place + prefix]]:
                if data[place : place + len(text)] == text:
                    yield place, text


def is_whole_name(data: Data, place: int, length: int) -> bool:
    """Whether the name at ``place`` is not part of a longer one."""
    before = data[place - 1] if place else 0
    after = data[place + length] if place + length < len(data) else 0
    return before not in IDENTIFIER and after not in IDENTIFIER


def is_whole_text(data: Data, place: int, length: int) -> bool:
    """Whether the text at ``place`` is NUL-terminated, as a string constant is."""
    return place + length == len(data) or data[place + length] == 0
