"""Builds the programs of `cafe fuzz`: secret sources with sanitizers, stubs, and a hostile driver."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cafe_lib.errors import BuildError
from cafe_lib.fuzz.table import Room, table_source
from cafe_lib.interface.model import Interface
from cafe_lib.toolchain.compile import INCLUDE, RUNTIME, language_of, run
from cafe_lib.toolchain.project import Project
from cafe_lib.toolchain.stubs_secret import secret_stub_source

NATIVE: Final = Path(__file__).resolve().parent / "native"
SANITIZE: Final = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
FLAGS: Final = ("-O1", "-g", "-fno-omit-frame-pointer", "-fno-lto", "-pthread", "-w", *SANITIZE)
MAX_SLOT_BYTES: Final = 64 << 10  # more would be filled, not fuzzed
MAX_BULK_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """A file to compile, its language, and options of its own."""

    path: Path
    language: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Workshop:
    """Compilers, and the directory that everything is built in."""

    project: Project
    place: Path
    gcc: str
    gxx: str

    @property
    def room(self) -> Room:
        """The fuzzed channel: the project's, within reason."""
        memory = self.project.file.memory
        return Room(min(memory.slot, MAX_SLOT_BYTES), min(memory.bulk, MAX_BULK_BYTES))

    def includes(self) -> tuple[str, ...]:
        """Include options: the checked crossing before the runtime's own."""
        root = self.project.root
        own = [*(path.parent for path in self.project.headers), *self.project.include_dirs]
        folders = [NATIVE, INCLUDE, RUNTIME, *(root / path for path in dict.fromkeys(own))]
        return tuple(f"-I{folder}" for folder in folders)

    def compile(self, sources: Sequence[Source]) -> list[Path]:
        """Compile; several at a time. Raises BuildError with the compiler's message."""
        targets = [self.place / f"{number}-{source.path.stem}.o" for number, source in enumerate(sources)]
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            jobs = [
                pool.submit(run, self._command(source, target), self.project.root)
                for source, target in zip(sources, targets, strict=True)
            ]
            for job in jobs:
                job.result()
        return targets

    def _command(self, source: Source, target: Path) -> list[str]:
        compiler = self.gxx if source.language == "c++" else self.gcc
        own = self.project.flags(source.language) if not source.flags else source.flags
        return [compiler, *own, *FLAGS, *self.includes(), "-c", str(source.path), "-o", str(target)]

    def link(self, objects: Sequence[Path], name: str) -> Path:
        """Link a program; by g++, so that either language goes."""
        program = self.place / name
        run([self.gxx, *SANITIZE, "-pthread", *map(str, objects), "-o", str(program)], self.place)
        return program


def open_workshop(project: Project, place: Path) -> Workshop:
    """Find the compilers and make the directory.

    :raises BuildError: there is no gcc or no g++, or the directory cannot be made.
    """
    gcc, gxx = shutil.which("gcc"), shutil.which("g++")
    if gcc is None or gxx is None:
        raise BuildError("not installed: gcc and g++", hint="apt install gcc g++")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f"{place}: {error.strerror}") from error
    return Workshop(project, place, gcc, gxx)


def build_guest(shop: Workshop, interface: Interface) -> Path:
    """Build the hostile guest with the developer's secret code.

    :raises BuildError: with the compiler's message.
    """
    project = shop.project
    suffix = "cc" if interface.language == "c++" else "c"
    stub, table = shop.place / f"secret_stub.{suffix}", shop.place / "table.c"
    stub.write_text(secret_stub_source(interface))
    table.write_text(table_source(interface, shop.room))
    ours = ("-std=gnu17",)
    exact = (*ours, "-Daligned_alloc=stand_in_aligned_alloc")
    sources = [Source(NATIVE / f"{name}.c", "c", ours) for name in ("guest", "frames", "task", "stand_in")]
    sources += [
        Source(table, "c", ours),
        Source(RUNTIME / "rt_callback.c", "c", ours),
        Source(RUNTIME / "rt_large.c", "c", exact),
        Source(stub, interface.language),
        *(Source(project.root / path, language_of(path)) for path in project.sources),
    ]
    return shop.link(shop.compile(sources), "hostile-guest")
