"""Links the secret image and the public library, and names the functions that hold a `syscall`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cafe_lib.errors import BuildError
from cafe_lib.toolchain.compile import RUNTIME, Toolchain, run

_LINK_FLAGS: Final = (
    "-pie",
    "--no-dynamic-linker",
    "-z",
    "notext",
    "-z",
    "noexecstack",
    "-z",
    "nodynamic-undefined-weak",
    "--gc-sections",
    "--eh-frame-hdr",
    "--no-undefined",
    "--build-id=none",
)
_FUNCTION: Final = re.compile(r"^[0-9a-f]+ <([^>]+)>:$")
_SYSCALL: Final = re.compile(r"\b(?:syscall|sysenter|int\s+\$0x80)\b")


def link_secret(tools: Toolchain, objects: Sequence[Path], output: Path, *, cxx: bool) -> None:
    """Link objects, the compiler's libraries and musl to a position-independent image.

    :raises BuildError: with the linker's message.
    """
    names = ["libgcc.a", "libgcc_eh.a"]
    if cxx:
        names = ["libstdc++.a", *names]
    libraries = [_library(tools, name) for name in names]
    command = [
        tools.ld,
        *_LINK_FLAGS,
        "-T",
        str(RUNTIME / "image.ld"),
        *(str(path) for path in objects),
        "--start-group",
        *libraries,
        str(tools.musl_library / "libc.a"),
        "--end-group",
        "-o",
        str(output),
    ]
    run(command, output.parent)


def _library(tools: Toolchain, name: str) -> str:
    path = run([tools.gcc, f"-print-file-name={name}"], Path.cwd()).strip()
    if not Path(path).is_absolute():
        raise BuildError(f"{name} is not installed", hint="apt install g++")
    return path


def find_syscalls(tools: Toolchain, image: Path) -> tuple[str, ...]:
    """Return the functions of the image that hold a system call, which is a fault when reached.

    :raises BuildError: the disassembler failed.
    """
    listing = run([tools.objdump, "-d", "-C", "--no-show-raw-insn", str(image)], image.parent)
    found: dict[str, None] = {}
    function = "?"
    for line in listing.splitlines():
        if head := _FUNCTION.match(line):
            function = head[1]
        elif _SYSCALL.search(line):
            found[function] = None
    return tuple(found)


def link_public(tools: Toolchain, objects: Sequence[Path], name: str, directory: Path) -> tuple[Path, Path]:
    """Make lib<name>.a and lib<name>.so; return both.

    :raises BuildError: with the tool's message.
    """
    static, shared = directory / f"lib{name}.a", directory / f"lib{name}.so"
    static.unlink(missing_ok=True)
    run([tools.ar, "rcsD", str(static), *(str(path) for path in objects)], directory)
    flags = ["-shared", "-pthread", f"-Wl,-soname,lib{name}.so", "-Wl,--build-id=none", "-Wl,-z,now"]
    flags.append("-Wl,-z,nodelete")  # its fault handler stays installed for the life of the process
    run([tools.gcc, *flags, *(str(path) for path in objects), "-o", str(shared)], directory)
    return static, shared
