"""Adds the image's base to the words its relocation list names."""

from __future__ import annotations

from typing import Final

import numpy as np

from cafe_lib.errors import ImageError
from cafe_lib.image.flat import ImageHeader, image_table

_WORD: Final = 8


def relocate(image: memoryview, header: ImageHeader, base: int) -> int:
    """Relocate in place and return how many words were changed.

    The list is copied once and judged again here, on the very copy that is used: nothing outside the
    read-only and data areas is written whatever the image holds.

    :raises ImageError: an offset out of those areas, out of order, or overlapping another.
    """
    places = image_table(image, header.reloc_offset, header.reloc_count).astype(np.int64)
    if not places.size:
        return 0
    gaps = np.diff(places)
    if gaps.size and gaps.min() < _WORD:
        raise ImageError("relocations overlap or are not in ascending order")
    if places[0] < header.rodata_offset or places[-1] + _WORD > header.file_bytes:
        raise ImageError("a relocation lies outside the read-only and data areas")
    _add(image, places, base)
    return int(places.size)


def _add(image: memoryview, places: np.ndarray[tuple[int], np.dtype[np.int64]], base: int) -> None:
    """Add modulo 2^64; almost all places are aligned words, the rest is gathered byte by byte."""
    aligned = places[places % _WORD == 0]
    whole = len(image) // _WORD
    np.frombuffer(image, dtype="<u8", count=whole)[aligned // _WORD] += np.uint64(base)
    odd = places[places % _WORD != 0]
    if odd.size:
        index = odd[:, None] + np.arange(_WORD)
        every_byte = np.frombuffer(image, dtype=np.uint8)
        words = every_byte[index].view("<u8") + np.uint64(base)
        every_byte[index] = words.view(np.uint8)
