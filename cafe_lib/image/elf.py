"""Reads the ELF file that the image link script makes and flattens it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from cafe_lib.errors import ImageError
from cafe_lib.image.flat import HEADER_BYTES, PAGE, FlatImage, ImageHeader, parse_image_header

_RELATIVE: Final = 8
_IRELATIVE: Final = 37
_LINKER_TABLES: Final = (".rela.dyn", ".rela.plt", ".dynamic", ".dynsym", ".dynstr", ".hash", ".gnu.hash")
_PF_X, _PF_W = 1, 2


@dataclass(frozen=True, slots=True)
class Symbol:
    """A function or object of the linked image; ``offset`` counts from the image base."""

    name: str
    offset: int
    size: int
    is_function: bool


@dataclass(frozen=True, slots=True)
class Section:
    """Where an output section lies; ``size`` is in bytes."""

    offset: int
    size: int


class LinkedImage:
    """The parts of the linked ELF file that matter, read once.

    :raises ImageError: not an ELF file as the link script makes it.
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self._read(ELFFile(file))
        except (ELFError, struct.error, ValueError, KeyError) as error:
            raise ImageError(f"{path.name} cannot be read as a linked image: {error}") from error

    def _read(self, elf: ELFFile) -> None:
        if elf.get_machine_arch() != "x64":
            raise ImageError("not an x86-64 ELF file")
        self.entry = int(elf["e_entry"])
        loads = [segment for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD"]
        self.segments = [
            (int(s["p_vaddr"]), int(s["p_memsz"]), int(s["p_flags"]), bytes(s.data())) for s in loads
        ]
        self.tls = next(
            (
                (int(s["p_vaddr"]), int(s["p_filesz"]), int(s["p_memsz"]), int(s["p_align"]))
                for s in elf.iter_segments()
                if s["p_type"] == "PT_TLS"
            ),
            (0, 0, 0, 1),
        )
        self.sections = {
            s.name: Section(int(s["sh_addr"]), int(s["sh_size"]))
            for s in elf.iter_sections()
            if s["sh_flags"] & 2
        }
        self.relocations = sorted(
            (int(r["r_offset"]), int(r["r_info_type"]), int(r["r_addend"]))
            for s in elf.iter_sections()
            if s["sh_type"] == "SHT_RELA" and s["sh_flags"] & 2
            for r in s.iter_relocations()
        )
        table = elf.get_section_by_name(".symtab")
        self.symbols = _read_symbols(table) if isinstance(table, SymbolTableSection) else ()

    def section(self, name: str) -> Section:
        """Return a section, of no bytes if it is absent."""
        return self.sections.get(name, Section(0, 0))

    def place(self, offset: int) -> str:
        """Name the function or object at an image offset, for diagnostics."""
        return next((s.name for s in self.symbols if s.offset <= offset < s.offset + max(s.size, 1)), "?")


def _read_symbols(table: SymbolTableSection) -> tuple[Symbol, ...]:
    return tuple(
        Symbol(s.name, int(s["st_value"]), int(s["st_size"]), s["st_info"]["type"] == "STT_FUNC")
        for s in table.iter_symbols()
        if s.name and s["st_shndx"] != "SHN_UNDEF"
    )


def flatten(linked: LinkedImage) -> FlatImage:
    """Lay out the flat image: areas, relocation list, tables; checked as a loader would check it.

    :raises ImageError: a relocation or layout that a loader would refuse, named by symbol.
    """
    areas = _areas(linked)
    header_fields, file_bytes = areas
    image = bytearray(file_bytes)
    for start, _, _, data in linked.segments:
        image[start : start + len(data)] = data
    for name in _LINKER_TABLES:
        section = linked.section(name)
        image[section.offset : section.offset + section.size] = bytes(section.size)
    exports = _absolute_table(image, linked.section(".cafe.exports"))
    functions = _absolute_table(image, linked.section(".cafe.functions"))
    if not exports or len(exports) != len(functions):
        raise ImageError("the image exports no function")
    reloc_offset, reloc_count = _write_relocations(image, linked)
    tls_offset, tls_file_bytes, tls_bytes, tls_align = linked.tls
    header = ImageHeader(
        **header_fields,
        reloc_offset=reloc_offset or header_fields["rodata_offset"],
        reloc_count=reloc_count,
        export_offset=linked.section(".cafe.exports").offset,
        export_count=len(exports),
        function_offset=linked.section(".cafe.functions").offset,
        entry_offset=linked.entry,
        tls_offset=tls_offset,
        tls_file_bytes=tls_file_bytes,
        tls_bytes=tls_bytes,
        tls_align=max(tls_align, 1),
    )
    image[:HEADER_BYTES] = header.pack()
    plaintext = bytes(image)
    return FlatImage(parse_image_header(memoryview(plaintext)), plaintext)


def _areas(linked: LinkedImage) -> tuple[dict[str, int], int]:
    by_flags = {flags & (_PF_X | _PF_W): (start, size, data) for start, size, flags, data in linked.segments}
    if len(by_flags) != len(linked.segments) or not {0, _PF_X} <= by_flags.keys() <= {0, _PF_X, _PF_W}:
        raise ImageError("the image does not have the areas code, read-only and data")
    code, rodata = by_flags[_PF_X][0], by_flags[0][0]
    rodata_end = rodata + -(-by_flags[0][1] // PAGE) * PAGE
    data, size, contents = by_flags.get(_PF_W, (rodata_end, 0, b""))
    fields = {
        "code_offset": code,
        "code_bytes": rodata - code,
        "rodata_offset": rodata,
        "rodata_bytes": data - rodata,
        "data_offset": data,
        "data_bytes": len(contents),
        "bss_bytes": size - len(contents),
    }
    return fields, data + len(contents)


def _absolute_table(image: bytearray, section: Section) -> list[int]:
    """Turn self-relative entries into image offsets, in place."""
    offsets = []
    for place in range(section.offset, section.offset + section.size, 4):
        offset = place + struct.unpack_from("<i", image, place)[0]
        struct.pack_into("<I", image, place, offset)
        offsets.append(offset)
    return offsets


def _write_relocations(image: bytearray, linked: LinkedImage) -> tuple[int, int]:
    """Apply the addends and write the two lists where the linker's own tables were.

    The list of the loader comes first; behind it, for the runtime, slot and resolver of each IRELATIVE.
    """
    relative: list[int] = []
    resolved: list[tuple[int, int]] = []
    for offset, kind, addend in linked.relocations:
        if kind == _RELATIVE:
            struct.pack_into("<q", image, offset, addend)
            relative.append(offset)
        elif kind == _IRELATIVE:
            resolved.append((offset, addend))
        elif kind:
            raise ImageError(f"{linked.place(offset)} has a relocation of type {kind}")
    _check_places(linked, relative, resolved)
    used = [linked.section(name) for name in (".rela.dyn", ".rela.plt") if linked.section(name).size]
    start = min((section.offset for section in used), default=0)
    words = relative + [word for pair in resolved for word in pair]
    struct.pack_into(f"<{len(words)}I", image, start, *words)
    tls_offset, tls_file_bytes, tls_bytes, tls_align = linked.tls
    layout = (start + 4 * len(relative), len(resolved), tls_offset, tls_file_bytes, tls_bytes, tls_align)
    struct.pack_into("<6I", image, linked.section(".cafe.layout").offset, *layout)
    return start, len(relative)


def _check_places(linked: LinkedImage, relative: list[int], resolved: list[tuple[int, int]]) -> None:
    writable = [(start, start + size) for start, size, flags, _ in linked.segments if flags & _PF_W]
    code = [(start, start + size) for start, size, flags, _ in linked.segments if flags & _PF_X]
    for offset in relative:
        if any(start <= offset < end for start, end in code):
            name = linked.place(offset)
            raise ImageError(f"{name} holds an absolute address in its code", hint="compile it with -fPIE")
    for offset, _ in resolved:
        if not any(start <= offset < end for start, end in writable):
            raise ImageError(
                f"{linked.place(offset)} is constant and points to a function with several versions",
                hint="leave out const, or the target_clones attribute of the function",
            )
