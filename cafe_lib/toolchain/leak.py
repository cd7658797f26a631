"""Shows that no secret byte of the developer's objects is in a public file, or says where one is.

Found are: 24 bytes of code, 16 of constants, 8-byte values of high entropy, whole strings, symbol names. A
report never shows the bytes themselves; a waiver names one match by its SHA-256.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cafe_lib.errors import BuildError, LeakError
from cafe_lib.toolchain.leak_patterns import WINDOWS, LeakKind, Secrets, Words, read_secrets
from cafe_lib.toolchain.leak_scan import Data, find_rows, find_texts, is_whole_name, is_whole_text

MAX_MATCHES = 1000


@dataclass(frozen=True, slots=True)
class LeakMatch:
    """One finding. ``section``: where in a secret object; ``offset`` and ``length``: in the public file."""

    kind: LeakKind
    artefact: str
    section: str
    offset: int
    length: int
    sha256: str  # of kind and bytes: what a waiver names


@dataclass(frozen=True, slots=True)
class LeakReport:
    """``matches`` fail a build, ``waived`` were allowed by hash, ``unused`` waivers allow nothing now."""

    matches: tuple[LeakMatch, ...]
    waived: tuple[LeakMatch, ...]
    unused: tuple[str, ...]
    scanned_bytes: int
    patterns: int

    def verify(self) -> None:
        """Raise LeakError, with every match, unless there is none."""
        if not self.matches:
            return
        lines = [
            f"{match.artefact}+{match.offset:#x}: {match.length} bytes of {match.kind} from {match.section} "
            f"(waiver: {match.sha256})"
            for match in self.matches
        ]
        hint = "move what is public out of the secret sources, or waive the match by its hash"
        raise LeakError("\n".join(lines), hint=hint)


def check_leaks(
    secret_objects: Sequence[Path],
    public_artefacts: Sequence[Path],
    *,
    exported: Collection[str] = (),
    known: Sequence[Path] = (),
    waivers: Collection[str] = (),
) -> LeakReport:
    """Look for the developer's secret objects (not runtime, not stubs) in the public files.

    ``exported`` are the symbols of secret functions and callbacks, whose names are public. What also is in
    ``known`` files (libcafe's own objects, made without the secrets) is no secret. Raises BuildError.
    """
    secrets = read_secrets(secret_objects, exported)
    for path in known:
        with _contents(path) as data:
            forget_known(secrets, data)
    matches: list[LeakMatch] = []
    scanned = 0
    for path in public_artefacts:
        with _contents(path) as data:
            scanned += len(data)
            matches += _search(secrets, path.name, data)
    allowed = set(waivers)
    kept = tuple(match for match in matches if match.sha256 not in allowed)
    waived = tuple(match for match in matches if match.sha256 in allowed)
    unused = tuple(sorted(allowed - {match.sha256 for match in waived}))
    count = sum(len(rows) for rows in secrets.windows.values()) + len(secrets.strings) + len(secrets.names)
    return LeakReport(kept[:MAX_MATCHES], waived, unused, scanned, count)


@contextmanager
def _contents(path: Path) -> Iterator[Data]:
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                yield b""
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield data
    except OSError as error:
        raise BuildError(f"{path.name}: {error.strerror}") from error


Spans = list[tuple[int, int, str]]  # start, end, place in the secret object


def _search(secrets: Secrets, artefact: str, data: Data) -> list[LeakMatch]:
    spans: dict[LeakKind, Spans] = {kind: [] for kind in LeakKind}
    kinds = list(WINDOWS)
    for number, row, offset in find_rows(_tables(secrets), data):
        place, inner = secrets.places[kinds[number]][row]
        spans[kinds[number]].append((offset, offset + WINDOWS[kinds[number]], f"{place}+{inner:#x}"))
    for offset, text in _strings_in(secrets, data):
        spans[LeakKind.STRING].append((offset, offset + len(text), secrets.strings[text]))
    for offset, name in _names_in(secrets, data):
        spans[LeakKind.SYMBOL].append((offset, offset + len(name), secrets.names[name]))
    return [
        LeakMatch(kind, artefact, place, start, end - start, _waiver(kind, data[start:end]))
        for kind, found in spans.items()
        for start, end, place in _merge(found)
    ]


def _tables(secrets: Secrets) -> list[tuple[int, Words]]:
    return [(length, secrets.windows[kind]) for kind, length in WINDOWS.items()]


def _strings_in(secrets: Secrets, data: Data) -> Iterator[tuple[int, bytes]]:
    for offset, text in find_texts(secrets.strings, data):
        if is_whole_text(data, offset, len(text)):
            yield offset, text


def _names_in(secrets: Secrets, data: Data) -> Iterator[tuple[int, bytes]]:
    for offset, name in find_texts(secrets.names, data):
        if is_whole_name(data, offset, len(name)):
            yield offset, name


def _waiver(kind: LeakKind, data: bytes) -> str:
    return hashlib.sha256(b"cafe leak v1 " + kind.encode() + b"\0" + data).hexdigest()


def _merge(found: Spans) -> Spans:
    """Join windows that overlap or touch into one match."""
    spans: Spans = []
    for start, end, place in sorted(found):
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]), spans[-1][2])
        else:
            spans.append((start, end, place))
    return spans


def forget_known(secrets: Secrets, data: Data) -> None:
    """Drop the patterns that occur in a file known to be public."""
    seen: dict[LeakKind, set[bytes]] = {kind: set() for kind in WINDOWS}
    kinds = list(WINDOWS)
    for number, row, _ in find_rows(_tables(secrets), data):
        seen[kinds[number]].add(secrets.windows[kinds[number]][row].tobytes())
    for kind, rows in seen.items():
        if rows:
            kept = [i for i, row in enumerate(secrets.windows[kind]) if row.tobytes() not in rows]
            secrets.windows[kind] = secrets.windows[kind][kept]
            secrets.places[kind] = [secrets.places[kind][i] for i in kept]
    for _, text in list(_strings_in(secrets, data)):
        secrets.strings.pop(text, None)
    for _, name in list(_names_in(secrets, data)):
        secrets.names.pop(name, None)
