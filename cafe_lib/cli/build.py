"""`cafe build`: split a program into package and public library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from cafe_lib.cli.console import JsonOption, print_result, progress, warn
from cafe_lib.cli.publisher import PublisherOption
from cafe_lib.image.manifest import DEBUG
from cafe_lib.toolchain.keys import load_publisher
from cafe_lib.toolchain.project import Mode, Project, load_project

if TYPE_CHECKING:
    from cafe_lib.toolchain.build import BuildResult
    from cafe_lib.toolchain.native import NativeResult

_SHOWN_SYSCALLS = 8
# These make one only when threads wait for each other, and an enclave has one thread.
_ONLY_CONTENDED = frozenset(
    [
        "__lockfile",
        "__unlockfile",
        "__lock",
        "__unlock",
        "__wait",
        "__vm_unlock",
        "pthread_mutex_timedlock",
        "__pthread_mutex_trylock_owner",
        "__pthread_mutex_unlock",
        "__pthread_once_full",
        "undo",
        "__cxa_guard_acquire",
        "__cxa_guard_release",
    ]
)


_UNPROTECTED = "nothing is protected: the secret code lies readable in the library; do not ship it"


def build(
    publisher: PublisherOption,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where cafe.toml is.")] = Path(),
    output: Annotated[
        Path | None, typer.Option(help="Where to build; DIR/build, or DIR/build/native, by default.")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="native, debug or production; as cafe.toml says by default.")
    ] = "",
    sanitize: Annotated[str, typer.Option(help="Of a native build: address,undefined for example.")] = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Build the package and the public library of a project."""
    from cafe_lib.toolchain.build import build_project  # noqa: PLC0415 - libclang and numpy: slow to import

    project = load_project(directory.resolve(), _mode(mode))
    if project.mode == "native":
        _build_native(project, output, sanitize, as_json=as_json)
        return
    if sanitize:
        raise typer.BadParameter("sanitizers need a native build: --mode native")
    identity = load_publisher(publisher)
    with progress(quiet=as_json) as report:
        built = build_project(project, identity, report, output.resolve() if output else None)
    _warn_syscalls([name for name in built.syscalls if name not in _ONLY_CONTENDED])
    if built.leaks.unused:
        warn(f"waivers that allow nothing any more: {', '.join(built.leaks.unused)}")
    print_result(describe_build(built), as_json=as_json)


def _mode(text: str) -> Mode | None:
    if text and text not in get_args(Mode):
        raise typer.BadParameter("the mode is native, debug or production")
    return cast(Mode, text) if text else None


def _build_native(project: Project, output: Path | None, sanitize: str, *, as_json: bool) -> None:
    """Build without protection; no publisher's identity is needed."""
    from cafe_lib.toolchain.native import build_native  # noqa: PLC0415 - libclang: slow to import

    with progress(quiet=as_json) as report:
        built = build_native(project, report, output.resolve() if output else None, sanitize)
    warn(f"native build: {_UNPROTECTED}")
    print_result(describe_native(project, built), as_json=as_json)


def describe_native(project: Project, built: NativeResult) -> dict[str, object]:
    """Return what the command prints of a native build."""
    return {
        "name": project.file.name,
        "version": project.file.version,
        "build_mode": "native",
        "protected": False,
        "static_library": str(built.static_library),
        "shared_library": str(built.shared_library),
        "include_dir": str(built.include_dir),
        "link_flags": " ".join(built.link_flags),
        "functions": [function.display for function in built.interface.functions],
    }


def _warn_syscalls(functions: list[str]) -> None:
    if functions:
        names = ", ".join(functions[:_SHOWN_SYSCALLS])
        more = f" and {len(functions) - _SHOWN_SYSCALLS} more" * (len(functions) > _SHOWN_SYSCALLS)
        warn(f"there is no kernel in an enclave; a system call ends it if reached, in: {names}{more}")


def describe_build(built: BuildResult) -> dict[str, object]:
    """Return what the command prints: paths, the SecretBinaryID in hex, sizes in bytes."""
    header = built.image.header
    return {
        "name": built.manifest.name,
        "version": built.manifest.version,
        "build_mode": "debug" if built.manifest.build_mode == DEBUG else "production",
        "secret_binary_id": built.secret_binary_id.hex(),
        "package": str(built.package),
        "package_bytes": built.package.stat().st_size,
        "static_library": str(built.static_library),
        "shared_library": str(built.shared_library),
        "include_dir": str(built.include_dir),
        "functions": [function.display for function in built.interface.functions],
        "callbacks": [function.display for function in built.interface.callbacks],
        "image_bytes": len(built.image.plaintext),
        "code_bytes": header.code_bytes,
        "rodata_bytes": header.rodata_bytes,
        "data_bytes": header.data_bytes,
        "bss_bytes": header.bss_bytes,
        "syscalls": list(built.syscalls),
        "leak_patterns": built.leaks.patterns,
        "leak_scanned_bytes": built.leaks.scanned_bytes,
        "waived": [match.sha256 for match in built.leaks.waived],
    }
