"""What must not be found in public files: windows, constants, strings and names of the secret objects.

Only bytes that a linker leaves as they are count: sections are split at relocated places, and code at the
padding between functions. Windows that carry
no information (padding, tables of small numbers) are left out, they would be found anywhere.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Section, SymbolTableSection
from numpy.typing import NDArray

from cafe_lib.errors import BuildError

WORD_BYTES = 8
CODE_WINDOW = 24
CONSTANT_WINDOW = 16
SHORTEST_STRING = 6
SHORTEST_NAME = 4
MAX_OBJECT_BYTES = 256 << 20
BLOCK_WINDOWS = 1 << 18
WIDE_RELOCATIONS = {1, 24, 25}  # R_X86_64_64, _PC64, _GOTOFF64: 8 bytes; the others change 4 at most
SHF_ALLOC, SHF_EXECINSTR = 2, 4
UNSAID = (".eh_frame", ".cafe.", ".note", ".init_array", ".fini_array", ".gcc_except_table", ".comment")
TEXT = re.compile(rb"[\t\n\r\x20-\x7e]{%d,}(?=\0)" % SHORTEST_STRING)
# rustc gives a string no NUL, but a section of its own, or one with others of 8, 16 or 32 bytes.
RUST_STRINGS = re.compile(r":\.rodata(?:\.\.L[^+]*|\.cst([0-9]{1,3}))\+")
WHOLE_TEXT = re.compile(rb"[\t\n\r\x20-\x7e]{%d,}" % SHORTEST_STRING)
PRINTABLE = frozenset(range(0x20, 0x7F))
# Long no-ops, with which compilers align code (SDM vol. 2, NOP): the same in every library.
PADDING = re.compile(
    rb"(?:\x66*\x2e?\x0f\x1f(?:\0|\x40.|\x44..|\x80.{4}|\x84.{5})|\x66\x90){1,64}", re.DOTALL
)
SHORTEST_PADDING = 6
WIDE_MOVE = re.compile(rb"[\x48\x49][\xb8-\xbf]")

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]


class LeakKind(enum.StrEnum):
    """What kind of secret was found."""

    CODE = "code"
    CONSTANT = "constant"
    WORD = "word"  # eight bytes of high entropy: a key half, a hash constant, a movabs immediate
    STRING = "string"
    SYMBOL = "symbol"


WINDOWS = {LeakKind.CODE: CODE_WINDOW, LeakKind.CONSTANT: CONSTANT_WINDOW, LeakKind.WORD: WORD_BYTES}


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes of a section that no relocation touches. ``place``: object, section and offset, for people."""

    place: str
    data: bytes
    code: bool


@dataclass(slots=True)
class Secrets:
    """All patterns of some objects. ``windows``: rows of 1 to 3 words per kind, and the place of each row."""

    windows: dict[LeakKind, Words] = field(default_factory=dict)
    places: dict[LeakKind, list[tuple[str, int]]] = field(default_factory=dict)
    strings: dict[bytes, str] = field(default_factory=dict)
    names: dict[bytes, str] = field(default_factory=dict)


def read_secrets(objects: Sequence[Path], exported: Iterable[str]) -> Secrets:
    """Collect the patterns of relocatable objects; ``exported`` names are public. Raises BuildError."""
    public = {name.encode() for name in exported}
    secrets = Secrets()
    runs: list[Run] = []
    for path in objects:
        for run in _read_object(path, secrets.names, public):
            runs.append(run)
            if not run.code:
                secrets.strings.update(dict.fromkeys(_texts(run), run.place))
    _collect(secrets, LeakKind.CODE, (_windows(run, CODE_WINDOW) for run in runs if run.code))
    _collect(secrets, LeakKind.CONSTANT, (_windows(run, CONSTANT_WINDOW) for run in runs if not run.code))
    _collect(secrets, LeakKind.WORD, map(_dense_words, runs))
    return secrets


def _texts(run: Run) -> list[bytes]:
    found = TEXT.findall(run.data)
    if rust := RUST_STRINGS.search(run.place):
        size = int(rust[1] or 0) or len(run.data)
        pieces = (run.data[start : start + size] for start in range(0, len(run.data), size))
        found += [piece for piece in pieces if WHOLE_TEXT.fullmatch(piece)]
    return found


def row_views(data: bytes, length: int, words: int) -> list[Words]:
    """For each of ``words`` words, a view of the word at every offset where a window of ``length`` fits."""
    count = max(0, len(data) - length + 1)
    return [
        np.ndarray((count,), dtype="<u8", buffer=data, offset=place, strides=(1,))
        for place in (range(0, words * WORD_BYTES, WORD_BYTES) if count else ())
    ]


def _read_object(path: Path, names: dict[bytes, str], public: set[bytes]) -> list[Run]:
    try:
        if path.stat().st_size > MAX_OBJECT_BYTES:
            raise BuildError(f"{path.name}: too large for the leak check")
        with path.open("rb") as file:
            elf = ELFFile(file)
            for name in _names(elf):
                if len(name) >= SHORTEST_NAME and name not in public and not name.startswith(b".L"):
                    names.setdefault(name, f"{path.name}:.symtab")
            return list(_runs(path.name, elf))
    except (OSError, ELFError, ValueError, KeyError, TypeError) as error:
        raise BuildError(f"{path.name}: not a readable object file") from error


def _names(elf: ELFFile) -> Iterator[bytes]:
    for section in elf.iter_sections():
        if isinstance(section, SymbolTableSection):
            for symbol in section.iter_symbols():
                if symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_info"]["type"] != "STT_SECTION":
                    yield symbol.name.encode(errors="surrogateescape")


def _runs(name: str, elf: ELFFile) -> Iterator[Run]:
    touched: dict[int, list[tuple[int, int]]] = {}
    for section in elf.iter_sections():
        if isinstance(section, RelocationSection):
            places = touched.setdefault(section["sh_info"], [])
            for entry in section.iter_relocations():
                width = 8 if entry["r_info_type"] in WIDE_RELOCATIONS else 4
                places.append((entry["r_offset"], width))
    for index, section in enumerate(elf.iter_sections()):
        if _says_something(section):
            yield from _split(name, section, sorted(touched.get(index, [])))


def _says_something(section: Section) -> bool:
    return (
        section["sh_type"] == "SHT_PROGBITS"
        and section["sh_flags"] & SHF_ALLOC != 0
        and not section.name.startswith(UNSAID)
    )


def _split(name: str, section: Section, touched: list[tuple[int, int]]) -> Iterator[Run]:
    data, start = section.data(), 0
    code = section["sh_flags"] & SHF_EXECINSTR != 0
    if code:
        padding = (match.span() for match in PADDING.finditer(data))
        longer = [(at, end - at) for at, end in padding if end - at >= SHORTEST_PADDING]
        touched = sorted([*touched, *longer])
    for place, width in [*touched, (len(data), 0)]:
        if place > start:
            yield Run(f"{name}:{section.name}+{start:#x}", data[start:place], code)
        start = max(start, place + width)


Found = tuple[Words, list[tuple[str, int]]]  # rows, and place and offset of each


def _collect(secrets: Secrets, kind: LeakKind, found: Iterable[Found]) -> None:
    rows, places = [np.empty((0, WINDOWS[kind] // WORD_BYTES), np.uint64)], []
    for some, origins in found:
        rows.append(some)
        places += origins
    secrets.windows[kind] = np.concatenate(rows)
    secrets.places[kind] = places


def _windows(run: Run, length: int) -> Found:
    words = length // WORD_BYTES
    views = row_views(run.data, length, words)
    if not views:
        return np.empty((0, words), np.uint64), []
    kept = np.nonzero(_telling(run.data, length))[0]
    rows = np.stack([view[kept] for view in views], axis=1)
    return rows, [(run.place, int(offset)) for offset in kept]


def _telling(data: bytes, length: int) -> NDArray[np.bool_]:
    """Which windows carry information."""
    blocks = []
    for start in range(0, len(data) - length + 1, BLOCK_WINDOWS):
        block = np.frombuffer(data[start : start + BLOCK_WINDOWS + length - 1], np.uint8)
        blocks.append(_telling_block(np.lib.stride_tricks.sliding_window_view(block, length)))
    return np.concatenate(blocks)


def _telling_block(windows: Bytes) -> NDArray[np.bool_]:
    length = windows.shape[1]
    ordered = np.sort(windows, axis=1)
    distinct = 1 + np.count_nonzero(ordered[:, 1:] != ordered[:, :-1], axis=1)
    good: NDArray[np.bool_] = distinct > max(3, length // 4)
    good &= np.count_nonzero(windows, axis=1) >= length // 2
    for period in (1, 2, 4, 8):
        good &= np.any(windows[:, period:] != windows[:, :-period], axis=1)
    steps = windows[:, 1:] - windows[:, :-1]  # wraps at 256, as counting bytes do
    good &= np.any(steps[:, 1:] != steps[:, :-1], axis=1)
    return good


def _dense_words(run: Run) -> Found:
    """Values that look random: at every fourth offset of constants, as immediates of 64-bit moves in code."""
    data = run.data
    places = [match.end() for match in WIDE_MOVE.finditer(data)] if run.code else range(0, len(data), 4)
    kept = [place for place in places if _dense(data[place : place + WORD_BYTES])]
    rows = np.array([int.from_bytes(data[place : place + WORD_BYTES], "little") for place in kept], np.uint64)
    return rows.reshape(-1, 1), [(run.place, place) for place in kept]


def _dense(word: bytes) -> bool:
    """Eight different bytes, none of them 0 or ff, not a piece of text."""
    return (
        len(set(word)) == WORD_BYTES
        and 0 not in word
        and 0xFF not in word  # noqa: PLR2004 - small negative numbers
        and not PRINTABLE.issuperset(word)
    )
