"""`cafe build --mode native`: the secret code linked into the public library, for gdb and sanitizers.

No package, no enclave, no protection: the developer's flags, the host's libc, calls that are calls. What else
the secret sources define stays local to the library, as it is out of reach in an enclave.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cafe_lib.errors import BuildError
from cafe_lib.interface.model import Interface
from cafe_lib.interface.records import Records
from cafe_lib.toolchain.bindings import write_bindings
from cafe_lib.toolchain.compile import GUEST, INCLUDE, find_toolchain, language_of, run, run_all
from cafe_lib.toolchain.project import Project
from cafe_lib.toolchain.record import write_record
from cafe_lib.toolchain.rust import compile_rust, find_rust, rust_crates
from cafe_lib.toolchain.stub_text import symbol
from cafe_lib.toolchain.stubs_native import call_symbol, callbacks_of, native_stub_source
from cafe_lib.toolchain.workshop import Workshop, copy_headers, read_interface, read_types

NATIVE: Final = GUEST / "native"
SANITIZERS: Final = ("address", "leak", "thread", "undefined")
_FLAGS: Final = ("-fPIC", "-g", "-fno-lto", "-fno-omit-frame-pointer")


@dataclass(frozen=True, slots=True)
class NativeResult:
    """What was built; ``link_flags`` is what a program needs beside the static library."""

    static_library: Path
    shared_library: Path
    include_dir: Path
    interface: Interface
    link_flags: tuple[str, ...]


def sanitize_flags(text: str) -> tuple[str, ...]:
    """Return compiler flags for names such as "address,undefined"; none for "".

    :raises BuildError: a name that is none of SANITIZERS, or two that exclude each other.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in SANITIZERS]:
        raise BuildError(
            f"no such sanitizer: {', '.join(unknown)}", hint=f"choose of {', '.join(SANITIZERS)}"
        )
    if "thread" in names and {"address", "leak"} & set(names):
        raise BuildError("the thread sanitizer excludes the others", hint="build twice")
    return (f"-fsanitize={','.join(names)}",) if names else ()


def build_native(
    project: Project, report: Callable[[str], None], output: Path | None = None, sanitize: str = ""
) -> NativeResult:
    """Build lib<name>.a and lib<name>.so in ``output``, by default the project's ``build/native``.

    :raises InterfaceError: the headers cannot be marshalled, so that no other mode could be built either.
    :raises BuildError: the compiler or linker refused, with its message.
    """
    extra = sanitize_flags(sanitize)
    shop = Workshop(find_toolchain(), project, output or project.root / "build" / "native")
    _prepare(shop)
    report("reading the interface")
    interface, records = read_interface(shop.project), read_types(shop.project)
    report("compiling the secret code natively")
    merged, api = _compile(shop, interface, records, extra)
    report("linking the library")
    static, shared = _link(shop, merged, api, extra)
    write_bindings(interface, records, project.file.name, shop.output)
    exports = [symbol(function) for function in interface.functions]
    write_record(shop.output, project, protected=False, functions=exports)
    cxx = ("-lstdc++",) if project.needs_cxx else ()
    return NativeResult(static, shared, copy_headers(shop), interface, (*extra, "-pthread", *cxx, "-lm"))


def _prepare(shop: Workshop) -> None:
    try:
        shutil.rmtree(shop.public, ignore_errors=True)
        shop.public.mkdir(parents=True)
        (shop.output / f"{shop.project.file.name}.cafe").unlink(missing_ok=True)  # not this library's
    except OSError as error:
        raise BuildError(f"{shop.output}: {error.strerror}") from error


def _compile(
    shop: Workshop, interface: Interface, records: Records, extra: Sequence[str]
) -> tuple[Path, Path]:
    """Compile everything; return the one object of library and secret code, and the public API's."""
    project, tools = shop.project, shop.tools
    stub, api = shop.public / "native_stub.c", shop.public / "cafe_native.o"
    callbacks = callbacks_of(interface)
    stub.write_text(native_stub_source(project.file.name, interface.functions, callbacks))
    targets = [shop.public / f"{number}-{path.stem}.o" for number, path in enumerate(project.sources)]
    crates = rust_crates(project, targets)
    secret = [target for target in targets if target not in {crate.object for crate in crates}]
    commands = []
    for source, target in zip(project.sources, targets, strict=True):
        language = language_of(source)
        if language == "rust":
            continue
        flags = (*shop.includes(), *project.flags(language), *extra, f"-I{INCLUDE}")
        commands.append(
            [tools.gxx if language == "c++" else tools.gcc, *flags, *_FLAGS, *_files(source, target)]
        )
    ours = (tools.gcc, "-O2", *_FLAGS, f"-I{INCLUDE}", f"-I{NATIVE}")
    own = shop.public / "native_stub.o"
    commands += [[*ours, *_files(stub, own)], [*ours, *_files(NATIVE / "native.c", api)]]
    run_all(commands, project.root)
    rust = find_rust(project, shop.public, "pic")
    if rust is not None:
        secret.append(compile_rust(rust, crates, interface, records))
    _redirect(shop, secret, [symbol(callback) for callback in callbacks])
    merged = shop.public / f"{project.file.name}.o"
    run(
        [tools.ld, "-r", "--force-group-allocation", *map(str, [own, *secret]), "-o", str(merged)],
        shop.public,
    )
    _keep_only(shop, merged, [symbol(function) for function in interface.functions])
    return merged, api


def _files(source: Path, target: Path) -> list[str]:
    return ["-c", str(source), "-o", str(target)]


def _redirect(shop: Workshop, objects: Sequence[Path], callbacks: Sequence[str]) -> None:
    """Let the secret code call what `cafe_set_callback` can change."""
    renames = [f"--redefine-sym={name}={call_symbol(index)}" for index, name in enumerate(callbacks)]
    if renames:
        run_all([[shop.tools.objcopy, *renames, str(path)] for path in objects], shop.public)


def _keep_only(shop: Workshop, merged: Path, exports: Sequence[str]) -> None:
    names = shop.public / "exports"
    names.write_text("\n".join(exports) + "\n")
    run([shop.tools.objcopy, f"--keep-global-symbols={names}", str(merged)], shop.public)


def _link(shop: Workshop, merged: Path, api: Path, extra: Sequence[str]) -> tuple[Path, Path]:
    project, tools, name = shop.project, shop.tools, shop.project.file.name
    static, shared = shop.output / f"lib{name}.a", shop.output / f"lib{name}.so"
    static.unlink(missing_ok=True)
    run([tools.ar, "rcsD", str(static), str(merged), str(api)], shop.output)
    language = "c++" if project.needs_cxx else "c"
    driver = tools.gxx if project.needs_cxx else tools.gcc
    flags = [*project.flags(language), *extra, "-shared", "-pthread", f"-Wl,-soname,lib{name}.so"]
    run([driver, *flags, str(merged), str(api), "-lm", "-o", str(shared)], shop.output)
    return static, shared
