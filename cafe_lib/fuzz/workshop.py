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
from cafe_lib.fuzz.calls import caller_tables, calls_source, returning
from cafe_lib.fuzz.table import Room, table_source
from cafe_lib.interface.model import Interface
from cafe_lib.toolchain.compile import GUEST, INCLUDE, RUNTIME, language_of, run
from cafe_lib.toolchain.project import Project
from cafe_lib.toolchain.rust import compile_rust, find_rust, rust_crates
from cafe_lib.toolchain.stubs_public import PublicBinding, public_stub_source
from cafe_lib.toolchain.stubs_secret import secret_stub_source
from cafe_lib.toolchain.workshop import read_types

NATIVE: Final = Path(__file__).resolve().parent / "native"
SANITIZE: Final = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
OURS: Final = ("-std=gnu17",)
IMAGE_BYTES: Final = 1 << 20
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
        folders = [NATIVE, INCLUDE, RUNTIME, GUEST, *(root / path for path in dict.fromkeys(own))]
        return tuple(f"-I{folder}" for folder in folders)

    def compile(self, sources: Sequence[Source], prefix: str) -> list[Path]:
        """Compile; several at a time. Raises BuildError with the compiler's message."""
        names = [f"{prefix}{number}-{source.path.stem}.o" for number, source in enumerate(sources)]
        targets = [self.place / name for name in names]
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

    def write(self, name: str, text: str) -> Path:
        """Write a generated source."""
        path = self.place / name
        path.write_text(text)
        return path

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
    stub = shop.write(f"secret_stub.{_suffix(interface)}", secret_stub_source(interface))
    table = shop.write("table.c", table_source(interface, shop.room))
    exact = (*OURS, "-Daligned_alloc=stand_in_aligned_alloc")
    sources = [Source(NATIVE / f"{name}.c", "c", OURS) for name in ("guest", "frames", "task", "stand_in")]
    sources += [
        Source(table, "c", OURS),
        Source(RUNTIME / "rt_callback.c", "c", OURS),
        Source(RUNTIME / "rt_large.c", "c", exact),
        Source(stub, interface.language),
        *(Source(project.root / path, language_of(path)) for path in project.sources if not _in_rust(path)),
    ]
    return shop.link([*shop.compile(sources, "guest-"), *_compile_rust(shop, interface)], "hostile-guest")


def _in_rust(source: Path) -> bool:
    return language_of(source) == "rust"


def _compile_rust(shop: Workshop, interface: Interface) -> list[Path]:
    """Compile sources in Rust, which no sanitizer looks into; overflows and bounds panic there anyway."""
    project = shop.project
    rust = find_rust(project, shop.place)
    if rust is None:
        return []
    targets = [shop.place / f"rust-{number}-{path.stem}.o" for number, path in enumerate(project.sources)]
    return [compile_rust(rust, rust_crates(project, targets), interface, read_types(project))]


def build_caller(shop: Workshop, interface: Interface) -> Path:
    """Build the program that the hostile enclave lies to, with the guest library and its public stub.

    :raises BuildError: with the compiler's message.
    """
    interface = returning(interface)
    suffix = _suffix(interface)
    offsets = tuple(4096 + 16 * index for index in range(len(interface.functions)))
    name = shop.project.file.name
    binding = PublicBinding(name, bytes(32), interface.digest(), max(IMAGE_BYTES, offsets[-1] + 16), offsets)
    generated = [
        shop.write(f"public_stub.{suffix}", public_stub_source(interface, binding)),
        shop.write(f"calls.{suffix}", calls_source(interface)),
    ]
    tables = shop.write("caller_tables.c", caller_tables(interface, shop.room))
    hidden = (*OURS, "-fvisibility=hidden")
    sources = [Source(NATIVE / f"{name}.c", "c", OURS) for name in ("caller", "liar", "frames", "task")]
    sources += [Source(path, "c", hidden) for path in sorted(GUEST.glob("*.c"))]
    sources.append(Source(tables, "c", OURS))
    sources += [Source(path, interface.language) for path in generated]
    return shop.link(shop.compile(sources, "caller-"), "hostile-enclave")


def _suffix(interface: Interface) -> str:
    return "cc" if interface.language == "c++" else "c"
