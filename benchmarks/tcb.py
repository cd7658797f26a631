"""`make tcb`: how much code has to be trusted, part by part; fails when a part outgrows its bound.

``python benchmarks/tcb.py --count DIR...`` counts any other sources with the same rules.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bars import Bar, draw_bars

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "explanation" / "tcb.svg"
SUFFIXES = (".c", ".h", ".S", ".cc", ".cpp", ".hpp", ".rs")
_TOKENS = re.compile(r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])'""", re.DOTALL)


@dataclass(frozen=True)
class Part:
    """Sources of a directory; ``most`` lines of C, None where nothing has to be trusted."""

    name: str
    directory: str
    most: int | None
    includes: tuple[str, ...]
    only: tuple[str, ...] = ()
    but: tuple[str, ...] = ()

    def sources(self) -> list[Path]:
        """Return its files, sorted."""
        found = sources_in(ROOT / self.directory)
        wanted = self.only or tuple(path.name for path in found)
        return [path for path in found if path.name in wanted and path.name not in self.but]


_RUNTIME = ("cafe_lib/include", "cafe_lib/runtime")
_CXX = ("rt_glibc.c",)
PARTS = (
    Part("VMM", "hypervisor_agent/vmm", 1500, ("cafe_lib/include",)),
    Part("runtime", "cafe_lib/runtime", 800, _RUNTIME, but=_CXX),
    Part("runtime, C++ only", "cafe_lib/runtime", 100, _RUNTIME, only=_CXX),
    Part("libcafe (untrusted)", "cafe_lib/guest", None, ("cafe_lib/include", "cafe_lib/guest")),
)


@dataclass(frozen=True)
class Published:
    """Others: lines of code, and where that is written or how it was counted."""

    name: str
    lines: int
    source: str


PUBLISHED = (
    Published("Solo5 (hvt tender)", 3_400, "C and ABI header, counted on a snapshot of November 2026"),
    Published(
        "Firecracker",
        50_000,
        'Agache et al., "Firecracker: Lightweight Virtualization for Serverless Applications", NSDI 2020',
    ),
)


@dataclass(frozen=True)
class Size:
    """Of one part: lines with code on them, by kind; bytes of its sources; bytes compiled."""

    name: str
    c_lines: int
    header_lines: int
    assembler_lines: int
    source_bytes: int
    compiled_bytes: int
    most: int | None

    @property
    def lines(self) -> int:
        """All of them."""
        return self.c_lines + self.header_lines + self.assembler_lines

    @property
    def good(self) -> bool:
        """Within its bound."""
        return self.most is None or self.c_lines <= self.most


def code_lines(text: str) -> int:
    """Return how many lines hold more than blanks and comments."""

    def keep(found: re.Match[str]) -> str:
        token = found[0]
        return "\n" * token.count("\n") if token.startswith("/") else token

    return sum(1 for line in _TOKENS.sub(keep, text).splitlines() if line.strip())


def sources_in(directory: Path, *, deep: bool = False) -> list[Path]:
    """Return the sources in a directory, or in all below it."""
    found = directory.rglob("*") if deep else directory.glob("*")
    return sorted(path for path in found if path.suffix in SUFFIXES and path.is_file())


def compiled_bytes(part: Part) -> int:
    """Compile each file as it is shipped, and add up what would be loaded: code, constants, data."""
    total = 0
    flags = ["-O2", "-fPIE", "-ffunction-sections", *(f"-I{ROOT / name}" for name in part.includes)]
    with tempfile.TemporaryDirectory() as folder:
        for path in part.sources():
            if path.suffix not in (".c", ".S"):
                continue
            target = Path(folder) / f"{path.name}.o"
            subprocess.run(["gcc", *flags, "-c", path, "-o", target], check=True)
            listing = subprocess.run(["size", target], check=True, capture_output=True, text=True).stdout
            text, data, *_ = listing.splitlines()[1].split()
            total += int(text) + int(data)
    return total


def measure(part: Part) -> Size:
    """Count and compile one part."""
    by_kind = dict.fromkeys((".c", ".h", ".S"), 0)
    for path in part.sources():
        by_kind[path.suffix] += code_lines(path.read_text())
    size = sum(path.stat().st_size for path in part.sources())
    return Size(part.name, *by_kind.values(), size, compiled_bytes(part), part.most)


def draw(sizes: Sequence[Size]) -> str:
    """Return the picture: every line of ours that has to be trusted, headers and assembler included."""
    trusted = [size for size in sizes if size.most is not None]
    ours = [Bar(f"CAFE: {size.name}", size.lines, f"{size.lines:,}", ours=True) for size in trusted]
    others = [Bar(one.name, one.lines, f"about {one.lines:,}") for one in PUBLISHED]
    return draw_bars(
        "Lines of code that isolate a guest",
        [*ours, *others],
        "CAFE counted by `make tcb`: no blank lines, no comments. Others as published; see trusted-code.md.",
    )


def print_table(sizes: Sequence[Size]) -> None:
    """Print one line per part."""
    print(
        f"{'part':20} {'C':>6} {'at most':>8} {'headers':>8} {'assembler':>10} {'source':>9} {'compiled':>9}"
    )
    for size in sizes:
        most = "-" if size.most is None else str(size.most)
        lines = f"{size.c_lines:6} {most:>8} {size.header_lines:8} {size.assembler_lines:10}"
        row = f"{size.name:20} {lines} {size.source_bytes:7} B {size.compiled_bytes:7} B"
        print(row if size.good else f"{row}  TOO LARGE")


def count(directory: Path) -> int:
    """Count all sources below a directory."""
    return sum(code_lines(path.read_text(errors="replace")) for path in sources_in(directory, deep=True))


def main() -> int:
    """Return the exit status: 1 if a part is too large."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON, draw nothing")
    parser.add_argument("--count", nargs="+", type=Path, metavar="DIR", help="count other sources instead")
    arguments = parser.parse_args()
    if arguments.count:
        for directory in arguments.count:
            print(f"{count(directory):8} {directory}")
        return 0
    if not (shutil.which("gcc") and shutil.which("size")):
        sys.exit("gcc and binutils are needed")
    sizes = [measure(part) for part in PARTS]
    if arguments.json:
        print(json.dumps([asdict(size) for size in sizes]))
    else:
        print_table(sizes)
        PICTURE.write_text(draw(sizes))
    return 0 if all(size.good for size in sizes) else 1


if __name__ == "__main__":
    sys.exit(main())
