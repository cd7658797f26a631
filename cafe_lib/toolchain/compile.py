"""Runs the user's compiler: secret sources, generated stubs, runtime, public library."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cafe_lib.errors import BuildError
from cafe_lib.toolchain.project import CXX_SUFFIXES, RUST_SUFFIXES

PACKAGE_ROOT: Final = Path(__file__).resolve().parent.parent
RUNTIME: Final = PACKAGE_ROOT / "runtime"
GUEST: Final = PACKAGE_ROOT / "guest"
INCLUDE: Final = PACKAGE_ROOT / "include"
_TOOLS: Final = ("gcc", "g++", "ld", "ar", "objdump", "objcopy")
COMPILE_SECONDS: Final = 600
_MAX_MESSAGE: Final = 16_000
_MUSL_ROOTS: Final = (
    ("/usr/include/x86_64-linux-musl", "/usr/lib/x86_64-linux-musl"),  # Debian, Ubuntu
    ("/usr/x86_64-linux-musl/include", "/usr/x86_64-linux-musl/lib64"),  # Fedora
    ("/usr/lib/musl/include", "/usr/lib/musl/lib"),  # Arch
    ("/usr/local/musl/include", "/usr/local/musl/lib"),  # musl's own `make install`
)

# What a secret object must be whatever the developer's flags say, so these come last.
SECRET_FLAGS: Final = (
    "-fPIE",
    "-fno-lto",
    "-fvisibility=hidden",
    "-ffunction-sections",
    "-fdata-sections",
    "-fstack-protector-strong",
    "-fcf-protection=none",
    "-ftls-model=local-exec",
    "-fasynchronous-unwind-tables",
    "-U_FORTIFY_SOURCE",
    "-Werror=date-time",
    "-g",  # changes no instruction; it stays in image.elf, for `cafe symbolize` and gdb
    "-gno-split-dwarf",
)
RUNTIME_FLAGS: Final = ("-mgeneral-regs-only",)
"""The runtime leaves nothing of its own in vector registers for a call to find."""

# Exceptions: a callback may leave the guest library by one, by pthread_exit or when its thread is cancelled.
PUBLIC_FLAGS: Final = (
    "-O2",
    "-fPIC",
    "-fvisibility=hidden",
    "-fexceptions",
    "-Werror=date-time",
    "-pthread",
)


@dataclass(frozen=True, slots=True)
class Toolchain:
    """Where compiler, linker and libc for secret code are."""

    gcc: str
    gxx: str
    ld: str
    ar: str
    objdump: str
    objcopy: str
    musl_include: Path
    musl_library: Path
    gcc_include: Path


@dataclass(frozen=True, slots=True)
class Unit:
    """One source to compile; ``flags`` come before the fixed ones, ``source`` may be relative to the root."""

    source: Path
    object: Path
    language: str
    flags: tuple[str, ...]
    seed: str


def find_toolchain() -> Toolchain:
    """Find gcc, binutils and musl.

    :raises BuildError: one is missing; the hint says how to install it.
    """
    tools = {name: shutil.which(name) for name in _TOOLS}
    if missing := [name for name, path in tools.items() if path is None]:
        raise BuildError(f"not installed: {', '.join(missing)}", hint="apt install gcc g++ binutils")
    roots = [(Path(inc), Path(lib)) for inc, lib in _MUSL_ROOTS]
    musl = next((root for root in roots if (root[1] / "libc.a").is_file()), None)
    if musl is None:
        raise BuildError("musl libc for secret code is not installed", hint="apt install musl-dev")
    found = {name: str(path) for name, path in tools.items()}
    gcc_include = Path(run([found["gcc"], "-print-file-name=include"], Path.cwd()).strip())
    return Toolchain(
        gcc=found["gcc"],
        gxx=found["g++"],
        ld=found["ld"],
        ar=found["ar"],
        objdump=found["objdump"],
        objcopy=found["objcopy"],
        musl_include=musl[0],
        musl_library=musl[1],
        gcc_include=gcc_include,
    )


def run(command: Sequence[str], cwd: Path, extra: Mapping[str, str] | None = None) -> str:
    """Run a tool, with ``extra`` in its environment, and return what it printed.

    :raises BuildError: it failed; the detail is its own message.
    """
    environment = {**os.environ, "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0", **(extra or {})}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, check=False, timeout=COMPILE_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{Path(command[0]).name} could not be run: {error}") from error
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip()[:_MAX_MESSAGE]
        raise BuildError(message or f"{Path(command[0]).name} ended with {done.returncode}")
    return done.stdout.decode(errors="replace")


def language_of(source: Path) -> str:
    """Return "c", "c++" or "rust" by the file's name."""
    if source.suffix in RUST_SUFFIXES:
        return "rust"
    return "c++" if source.suffix in CXX_SUFFIXES else "c"


def secret_flags(tools: Toolchain, language: str) -> list[str]:
    """Return the fixed flags of secret code: C sees musl's headers, C++ those its library was built with."""
    flags = ["-O2"] if language == "c++" else ["-O2", "-nostdinc"]
    if language == "c":
        flags += ["-isystem", str(tools.musl_include), "-isystem", str(tools.gcc_include)]
    return [*flags, f"-I{RUNTIME}", f"-I{INCLUDE}"]


def compile_secret(tools: Toolchain, root: Path, units: Sequence[Unit]) -> None:
    """Compile units of the secret image, several at a time.

    :raises BuildError: with the compiler's message.
    """
    commands = [
        [
            *(tools.gxx if unit.language == "c++" else tools.gcc,),
            *secret_flags(tools, unit.language),
            *unit.flags,
            *SECRET_FLAGS,
            *_reproducible(root, unit),
        ]
        for unit in units
    ]
    run_all(commands, root)


def compile_public(tools: Toolchain, root: Path, units: Sequence[Unit]) -> None:
    """Compile units of the public library.

    :raises BuildError: with the compiler's message.
    """
    commands = [
        [
            *(tools.gxx if unit.language == "c++" else tools.gcc,),
            *PUBLIC_FLAGS,
            *unit.flags,
            "-g0",  # a developer's -g is for the secret code
            f"-I{GUEST}",
            f"-I{INCLUDE}",
            *_reproducible(root, unit),
        ]
        for unit in units
    ]
    run_all(commands, root)


def _reproducible(root: Path, unit: Unit) -> list[str]:
    """Name neither this machine's directories nor anything random in the object."""
    maps = ((root, "."), (PACKAGE_ROOT, "cafe"), (unit.object.parent, "build"))
    prefixes = [f"-ffile-prefix-map={real}={name}" for real, name in maps]
    return [*prefixes, f"-frandom-seed={unit.seed}", "-c", str(unit.source), "-o", str(unit.object)]


def run_all(commands: Sequence[Sequence[str]], cwd: Path) -> None:
    """Run several tools at a time.

    :raises BuildError: as for :func:`run`.
    """
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for finished in [pool.submit(run, command, cwd) for command in commands]:
            finished.result()


def isa_of(tools: Toolchain, root: Path, flags: Sequence[str]) -> int:
    """Return ``enum cafe_isa``: the level the compiler may use under these flags.

    :raises BuildError: beyond x86-64-v3, or the flags are not the compiler's.
    """
    options = [flag for flag in flags if flag.startswith("-m")]
    macros = run([tools.gcc, *options, "-dM", "-E", "-x", "c", "/dev/null"], root)
    defined = {line.split()[1] for line in macros.splitlines() if line.startswith("#define ")}
    if "__AVX512F__" in defined:
        raise BuildError("the flags ask for AVX-512", hint="enclaves have up to x86-64-v3: -march=x86-64-v3")
    if "__AVX__" in defined:
        return 3
    return 2 if "__SSE4_2__" in defined else 1
