"""The tools and directories of one build, and what every kind of build does with them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cafe_lib.errors import InterfaceError
from cafe_lib.interface.model import Interface
from cafe_lib.interface.parse import parse_headers
from cafe_lib.interface.records import Records, read_records
from cafe_lib.toolchain.compile import INCLUDE, Toolchain
from cafe_lib.toolchain.project import Project


@dataclass(frozen=True, slots=True)
class Workshop:
    """The tools and directories of one build."""

    tools: Toolchain
    project: Project
    output: Path

    @property
    def secret(self) -> Path:
        """What must not leave this machine: objects, the linked image with its debug information."""
        return self.output / "secret"

    @property
    def public(self) -> Path:
        """What the public library is made of."""
        return self.output / "public"

    def includes(self) -> tuple[str, ...]:
        """Include options of the developer's own directories, the headers' among them."""
        root = self.project.root
        found = [*(path.parent for path in self.project.headers), *self.project.include_dirs]
        return tuple(f"-I{root / path}" for path in dict.fromkeys(found))


def read_interface(project: Project) -> Interface:
    """Read the project's headers.

    :raises InterfaceError: they cannot be marshalled.
    """
    return parse_headers(*_headers(project, project.language))


def read_secret_interface(project: Project, interface: Interface) -> Interface:
    """Read C headers as C++ for the stub of secret C++ code: only C++ can keep exceptions from leaving.

    Where that is not possible, because the header is not C++ or means another function there, ``interface``.
    """
    if interface.language != "c" or not project.needs_cxx:
        return interface
    try:
        same = parse_headers(*_headers(project, "c++"))
    except InterfaceError:
        return interface
    return same if same.digest() == interface.digest() else interface


def read_types(project: Project) -> Records:
    """Read what the types of those headers are made of.

    :raises InterfaceError: libclang cannot read them.
    """
    return read_records(*_headers(project, project.language))


def _headers(project: Project, language: str) -> tuple[list[Path], list[Path], str, tuple[str, ...]]:
    wanted = tuple(flag for flag in project.flags(language) if flag.startswith(("-D", "-U", "-I", "-std")))
    headers = [project.root / path for path in project.headers]
    return headers, [project.root / path for path in project.include_dirs], language, wanted


def copy_headers(shop: Workshop) -> Path:
    """Put what a public program includes in one directory."""
    include_dir = shop.output / "include"
    include_dir.mkdir(exist_ok=True)
    headers: Sequence[Path] = [
        INCLUDE / "cafe.h",
        *(shop.project.root / path for path in shop.project.headers),
    ]
    for header in headers:
        shutil.copyfile(header, include_dir / header.name)
    return include_dir
