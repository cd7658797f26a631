"""The project file cafe.toml: what to build, checked completely before a compiler runs."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from cafe_lib.errors import BuildError
from cafe_lib.image.manifest import (
    BULK_ALIGN,
    DEBUG,
    MAX_BULK_BYTES,
    MAX_DEADLINE_MS,
    MAX_HEAP_BYTES,
    MAX_SLOT_BYTES,
    MAX_SLOTS,
    MAX_STACK_BYTES,
    MAX_VCPUS,
    NAME,
    PRODUCTION,
    VERSION,
)

PROJECT_FILE: Final = "cafe.toml"
MAX_PROJECT_BYTES: Final = 256 * 1024
MAX_FILES: Final = 4096
C_SUFFIXES: Final = (".c", ".s", ".S")
CXX_SUFFIXES: Final = (".cc", ".cpp", ".cxx", ".C")
RUST_SUFFIXES: Final = (".rs",)
CXX_HEADERS: Final = (".hpp", ".hh", ".hxx", ".H")
_PAGE: Final = 4096
_SIZE: Final = re.compile(r"([0-9]{1,12})\s*([KMG]?)(?:i?B)?", re.IGNORECASE)
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_size(value: object, unit: int = _PAGE) -> int:
    """Return bytes, rounded up to whole pages (or units), from an integer or from text such as "64K".

    :raises ValueError: neither of the two.
    """
    if isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())):
        value = int(found[1]) * _UNITS[found[2].upper()]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("give bytes, or a number with K, M or G")
    return -(-value // unit) * unit


_Size = Annotated[int, BeforeValidator(parse_size)]
_Bulk = Annotated[int, BeforeValidator(partial(parse_size, unit=BULK_ALIGN))]
_Text = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[^\x00\n]+$")]
_Texts = Annotated[list[_Text], Field(max_length=MAX_FILES)]
Mode = Literal["native", "debug", "production"]
_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Memory(_Model):
    """What an enclave of this program gets, in bytes; sizes are rounded up to pages."""

    stack: Annotated[_Size, Field(ge=16384, le=MAX_STACK_BYTES)] = 256 << 10
    heap: Annotated[_Size, Field(ge=_PAGE, le=MAX_HEAP_BYTES)] = 32 << 20
    slots: Annotated[int, Field(ge=1, le=MAX_SLOTS)] = 4
    slot: Annotated[_Size, Field(ge=_PAGE, le=MAX_SLOT_BYTES)] = 64 << 10
    bulk: Annotated[_Bulk, Field(le=MAX_BULK_BYTES)] = 16 << 20


class ProjectFile(_Model):
    """The keys of cafe.toml."""

    name: Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
    version: Annotated[str, StringConstraints(pattern=f"^{VERSION.pattern}$")]
    sources: Annotated[_Texts, Field(min_length=1)]
    headers: Annotated[_Texts, Field(min_length=1)]
    include_dirs: _Texts = []
    language: Literal["c", "c++"] | None = None
    cflags: _Texts = []
    cxxflags: _Texts = []
    rustflags: _Texts = []
    isa: Literal["x86-64", "x86-64-v2", "x86-64-v3"] | None = None
    build_mode: Literal["production", "debug"] = "production"
    vcpus: Annotated[int, Field(ge=1, le=MAX_VCPUS)] = 1
    deadline_ms: Annotated[int, Field(ge=1, le=MAX_DEADLINE_MS)] = 10_000
    memory: Memory = Memory()
    waivers: Annotated[list[_Digest], Field(max_length=1024)] = []


@dataclass(frozen=True, slots=True)
class Project:
    """A project whose files were found; paths are relative to ``root``."""

    root: Path
    file: ProjectFile
    sources: tuple[Path, ...]
    headers: tuple[Path, ...]
    include_dirs: tuple[Path, ...]
    mode: Mode = "production"
    """How it is built; cafe.toml knows no "native", which only a developer's own command asks for."""

    @property
    def language(self) -> str:
        """The headers' language, "c" or "c++"."""
        guess = "c++" if any(path.suffix in CXX_HEADERS for path in self.headers) else "c"
        return self.file.language or guess

    @property
    def needs_cxx(self) -> bool:
        """Whether the C++ library must be linked."""
        return self.language == "c++" or any(path.suffix in CXX_SUFFIXES for path in self.sources)

    @property
    def build_mode(self) -> int:
        """The manifest's number of the build mode; raises BuildError for a native build, which has none."""
        if self.mode == "native":
            raise BuildError("a native build has no package")
        return DEBUG if self.mode == "debug" else PRODUCTION

    def flags(self, language: str) -> list[str]:
        """Return the developer's flags for "c", "c++" or "rust", before them what they may change."""
        if language == "rust":
            level = [f"-Ctarget-cpu={self.file.isa}"] if self.file.isa else []
            return [*level, *([] if self.mode == "production" else ["-Copt-level=1"]), *self.file.rustflags]
        march = [f"-march={self.file.isa}"] if self.file.isa else []
        optimise = [] if self.mode == "production" else ["-Og"]
        return [*march, *optimise, *(self.file.cxxflags if language == "c++" else self.file.cflags)]


def load_project(root: Path, mode: Mode | None = None) -> Project:
    """Read ``root``/cafe.toml and find the files it names; ``mode`` overrides its ``build_mode``.

    :raises BuildError: no such file, not TOML, a key or value that is not allowed, or a file that is missing.
    """
    file = parse_project(_read(root / PROJECT_FILE))
    headers = _find(root, file.headers, "header")
    sources = _find(root, file.sources, "source")
    for source in sources:
        if source.suffix not in (*C_SUFFIXES, *CXX_SUFFIXES, *RUST_SUFFIXES):
            raise BuildError(f"{PROJECT_FILE}: {source} is not a C, C++ or Rust source")
    for directory in file.include_dirs:
        if not (root / directory).is_dir():
            raise BuildError(f"{PROJECT_FILE}: there is no directory {directory}")
    include_dirs = tuple(Path(name) for name in file.include_dirs)
    return Project(root, file, sources, headers, include_dirs, mode or file.build_mode)


def parse_project(text: str) -> ProjectFile:
    """Parse the text of a project file.

    :raises BuildError: every key that is wrong, named.
    """
    try:
        return ProjectFile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise BuildError(f"{PROJECT_FILE}: {error}") from error
    except ValidationError as error:
        found = (
            f"{PROJECT_FILE}: {'.'.join(str(part) for part in item['loc']) or 'file'}: {item['msg']}"
            for item in error.errors()
        )
        raise BuildError("\n".join(found)) from error
    except RecursionError as error:
        raise BuildError(f"{PROJECT_FILE}: nested too deeply") from error


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PROJECT_BYTES + 1)
        if len(data) > MAX_PROJECT_BYTES:
            raise BuildError(f"{path.name} is longer than {MAX_PROJECT_BYTES} bytes")
        return data.decode()
    except OSError as error:
        hint = "run `cafe build` in the directory of a cafe.toml, or name it"
        raise BuildError(f"{path}: {error.strerror}", hint=hint) from error
    except UnicodeDecodeError as error:
        raise BuildError(f"{path.name} is not UTF-8 text") from error


def _find(root: Path, patterns: Sequence[str], what: str) -> tuple[Path, ...]:
    """Expand patterns inside ``root``; in the order given, matches of one pattern sorted."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise BuildError(f"{PROJECT_FILE}: {what} {pattern} lies outside the project")
        try:
            matches = sorted(path.relative_to(root) for path in root.glob(pattern) if path.is_file())
        except (ValueError, OSError, re.error) as error:
            raise BuildError(f"{PROJECT_FILE}: {what} {pattern}: {error}") from error
        if not matches:
            raise BuildError(f"{PROJECT_FILE}: there is no {what} {pattern}")
        found.update(dict.fromkeys(matches))
    if len(found) > MAX_FILES:
        raise BuildError(f"{PROJECT_FILE}: more than {MAX_FILES} {what}s")
    return tuple(found)
