"""The flat secret image: its header and tables, checked completely before anything is loaded.

The layout is ``struct cafe_image_header`` of cafe_abi.h: page 0 is the header, then code, read-only and
read-write areas, each a whole number of pages and directly behind the one before; the plaintext ends where
the data do, zeros (bss) follow in virtual memory only. The tables lie in the read-only area.
"""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cafe_lib.errors import ImageError

IMAGE_MAGIC: Final = 0x31474D4945464143
ABI_VERSION: Final = 2
PAGE: Final = 4096
HEADER_BYTES: Final = 4096
MAX_SPAN_BYTES: Final = 1 << 32  # tables hold u32 offsets
MAX_EXPORTS: Final = 4096
MAX_TLS_BYTES: Final = 1 << 20
RELOC_BYTES: Final = 8  # a relocation adds the base to one u64
_FORMAT: Final = struct.Struct("<QII17Q")
_HEADER_REST: Final = bytes(HEADER_BYTES - _FORMAT.size)


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The fields of ``struct cafe_image_header`` after magic and version: offsets and lengths in bytes."""

    code_offset: int
    code_bytes: int
    rodata_offset: int
    rodata_bytes: int
    data_offset: int
    data_bytes: int
    bss_bytes: int
    reloc_offset: int
    reloc_count: int
    export_offset: int
    export_count: int
    function_offset: int
    entry_offset: int
    tls_offset: int
    tls_file_bytes: int
    tls_bytes: int
    tls_align: int

    @property
    def file_bytes(self) -> int:
        """Length of the plaintext."""
        return self.data_offset + self.data_bytes

    @property
    def span_bytes(self) -> int:
        """Length in virtual memory, bss included, rounded up to pages."""
        return -(-(self.file_bytes + self.bss_bytes) // PAGE) * PAGE

    def pack(self) -> bytes:
        """Return the header page."""
        return _FORMAT.pack(IMAGE_MAGIC, ABI_VERSION, 0, *astuple(self)).ljust(HEADER_BYTES, b"\0")


@dataclass(frozen=True, slots=True)
class FlatImage:
    """A secret image ready to be cut in chunks: the whole plaintext, its first page the packed header."""

    header: ImageHeader
    plaintext: bytes


def image_table(image: memoryview, offset: int, count: int) -> NDArray[np.uint32]:
    """Return a copy of ``count`` u32 offsets at ``offset``; the place must have been checked."""
    return np.frombuffer(image, dtype="<u4", count=count, offset=offset).copy()


def parse_image_header(image: memoryview) -> ImageHeader:
    """Parse the header of a whole plaintext image and check it, its tables and its relocations.

    Afterwards every offset in the header, every export, function and relocation is known to be in its area;
    relocations ascend, don't overlap each other or a table, and are never in code.

    :param image: all of the plaintext, as bytes; not shared with anyone who could change it.
    :raises ImageError: anything at all is wrong.
    """
    if len(image) < HEADER_BYTES:
        raise ImageError("the image is shorter than its header")
    magic, abi_version, zero, *values = _FORMAT.unpack_from(image)
    if magic != IMAGE_MAGIC or zero or image[_FORMAT.size : HEADER_BYTES] != _HEADER_REST:
        raise ImageError("not a secret image")
    if abi_version != ABI_VERSION:
        raise ImageError(f"the image needs ABI version {abi_version}")
    header = ImageHeader(*values)
    _check_areas(header, len(image))
    _check_tables(header)
    _check_tls(header)
    _check_exports(header, image)
    _check_relocations(header, image)
    return header


def _check_areas(header: ImageHeader, file_bytes: int) -> None:
    if max(getattr(header, name) for name in header.__slots__) > MAX_SPAN_BYTES:
        raise ImageError("a header field is out of bounds")
    end = HEADER_BYTES
    for what in ("code", "rodata"):
        offset, size = getattr(header, f"{what}_offset"), getattr(header, f"{what}_bytes")
        if offset != end or size == 0 or size % PAGE:
            raise ImageError(f"the {what} area does not follow the one before it in whole pages")
        end = offset + size
    if header.data_offset != end or header.file_bytes != file_bytes:
        raise ImageError("the data area does not lie between the read-only area and the image's end")
    if header.span_bytes > MAX_SPAN_BYTES:
        raise ImageError("the image spans more than 4 GiB")
    if not header.code_offset <= header.entry_offset < header.code_offset + header.code_bytes:
        raise ImageError("the entry lies outside the code")


def _tables(header: ImageHeader) -> tuple[tuple[str, int, int], ...]:
    return (
        ("relocation list", header.reloc_offset, header.reloc_count),
        ("export table", header.export_offset, header.export_count),
        ("function table", header.function_offset, header.export_count),
    )


def _check_tables(header: ImageHeader) -> None:
    if not 1 <= header.export_count <= MAX_EXPORTS:
        raise ImageError(f"the image exports {header.export_count} functions")
    for what, offset, count in _tables(header):
        inside = header.rodata_offset <= offset and offset + 4 * count <= header.data_offset
        if not inside or offset % 4:
            raise ImageError(f"the {what} lies outside the read-only area")


def _check_tls(header: ImageHeader) -> None:
    align = header.tls_align
    if not 1 <= align <= PAGE or align & (align - 1):
        raise ImageError("the alignment of thread-local storage is not a power of two up to a page")
    if header.tls_bytes > MAX_TLS_BYTES or header.tls_file_bytes > header.tls_bytes:
        raise ImageError("the size of thread-local storage is out of bounds")
    end = header.tls_offset + header.tls_file_bytes
    if header.tls_file_bytes and not header.rodata_offset <= header.tls_offset <= end <= header.data_offset:
        raise ImageError("the thread-local template lies outside the read-only area")


def _check_exports(header: ImageHeader, image: memoryview) -> None:
    for what, offset, count in _tables(header)[1:]:
        table = image_table(image, offset, count)
        if table.min() < header.code_offset or table.max() >= header.rodata_offset:
            raise ImageError(f"an entry of the {what} lies outside the code")


def _check_relocations(header: ImageHeader, image: memoryview) -> None:
    places = image_table(image, header.reloc_offset, header.reloc_count).astype(np.int64)
    if not places.size:
        return
    if places.size > 1 and np.diff(places).min() < RELOC_BYTES:
        raise ImageError("relocations overlap or are not in ascending order")
    if places[0] < header.rodata_offset or places[-1] + RELOC_BYTES > header.file_bytes:
        raise ImageError("a relocation lies outside the read-only and data areas")
    if _overlaps(places, header.data_offset, 1, whole=False):
        raise ImageError("a relocation straddles two areas")
    for what, offset, count in _tables(header):
        if count and _overlaps(places, offset, 4 * count, whole=True):
            raise ImageError(f"a relocation lies in the {what}")


def _overlaps(places: NDArray[np.int64], offset: int, size: int, *, whole: bool) -> bool:
    """Say whether any u64 at ``places`` touches [offset, offset + size), or straddles ``offset``."""
    high = offset + size if whole else offset
    return bool(np.any((places + RELOC_BYTES > offset) & (places < high)))
