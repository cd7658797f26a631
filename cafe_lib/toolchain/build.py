"""`cafe build`: from a project to the package, the public library and the report on both."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cafe_lib.errors import BuildError, LeakError
from cafe_lib.image.elf import LinkedImage, flatten
from cafe_lib.image.flat import FlatImage, image_table
from cafe_lib.image.manifest import Manifest
from cafe_lib.image.package import open_package
from cafe_lib.interface.model import Interface
from cafe_lib.toolchain.bindings import write_bindings
from cafe_lib.toolchain.compile import (
    GUEST,
    RUNTIME,
    RUNTIME_FLAGS,
    Unit,
    compile_public,
    compile_secret,
    find_toolchain,
    isa_of,
    language_of,
)
from cafe_lib.toolchain.keys import PublisherIdentity
from cafe_lib.toolchain.leak import LeakReport, check_leaks
from cafe_lib.toolchain.link import find_syscalls, link_public, link_secret
from cafe_lib.toolchain.pack import Release, write_release
from cafe_lib.toolchain.project import Project
from cafe_lib.toolchain.record import write_record
from cafe_lib.toolchain.rust import compile_rust, find_rust, rust_crates
from cafe_lib.toolchain.stubs_public import PublicBinding, public_stub_source
from cafe_lib.toolchain.stubs_secret import secret_stub_source
from cafe_lib.toolchain.workshop import (
    Workshop,
    copy_headers,
    read_interface,
    read_secret_interface,
    read_types,
)

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What was built; ``syscalls`` names functions that would fault, ``functions`` the secret ones."""

    package: Path
    static_library: Path
    shared_library: Path
    include_dir: Path
    bindings: tuple[Path, ...]  # for programs in Rust and Python
    secret_binary_id: bytes
    manifest: Manifest
    image: FlatImage
    interface: Interface
    syscalls: tuple[str, ...]
    leaks: LeakReport


def build_project(
    project: Project, publisher: PublisherIdentity, report: Report, output: Path | None = None
) -> BuildResult:
    """Build everything in ``output`` (the project's ``build`` by default); ``report`` hears of each step.

    :raises InterfaceError: the headers cannot be marshalled.
    :raises BuildError: the compiler or linker refused, with its message; LeakError among them.
    :raises ImageError: the linked image has something a loader would refuse.
    """
    shop = Workshop(find_toolchain(), project, output or project.root / "build")
    _prepare(shop)
    report("reading the interface")
    interface, records = read_interface(shop.project), read_types(shop.project)
    report("compiling the secret code")
    objects = _compile_image(shop, read_secret_interface(project, interface))
    rust = find_rust(project, shop.secret)
    if rust is not None:
        objects.append(compile_rust(rust, rust_crates(project, _developer_objects(shop)), interface, records))
    report("linking the secret image")
    linked_path = shop.secret / "image.elf"
    link_secret(shop.tools, objects, linked_path, cxx=project.needs_cxx)
    image = flatten(LinkedImage(linked_path))
    if image.header.export_count != len(interface.functions):
        raise BuildError("the image does not export every secret function")
    syscalls = find_syscalls(shop.tools, linked_path)
    report("encrypting and signing the package")
    levels = [isa_of(shop.tools, project.root, project.flags(language)) for language in ("c", "c++")]
    isa = max([*levels, *([rust.isa()] if rust else [])])
    package = shop.output / f"{project.file.name}.cafe"
    manifest = write_release(package, image, Release(project, interface, isa), publisher)
    binary_id = open_package(package).secret_binary_id
    report("building the public library")
    static, shared = _build_public(shop, interface, image, binary_id)
    include_dir = copy_headers(shop)
    bindings = write_bindings(interface, records, project.file.name, shop.output)
    report("looking for secret bytes in the public library")
    leaks = _check_leaks(shop, interface, (static, shared))
    write_record(
        shop.output,
        project,
        protected=True,
        functions=[function.symbol for function in interface.functions],
        secret_binary_id=binary_id,
        image=linked_path,
    )
    return BuildResult(
        package, static, shared, include_dir, bindings, binary_id, manifest, image, interface, syscalls, leaks
    )


def _prepare(shop: Workshop) -> None:
    try:
        for directory, mode in ((shop.output, 0o755), (shop.secret, 0o700), (shop.public, 0o755)):
            if directory != shop.output:
                shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f"{shop.output}: {error.strerror}") from error


def _compile_image(shop: Workshop, interface: Interface) -> list[Path]:
    """Compile runtime, generated stub and secret sources; return the objects in link order."""
    project = shop.project
    stub = shop.secret / f"secret_stub.{_suffix(interface)}"
    stub.write_text(secret_stub_source(interface))
    runtime = sorted(path for path in RUNTIME.iterdir() if path.suffix in (".c", ".S"))
    if not project.needs_cxx:
        runtime.remove(RUNTIME / "rt_glibc.c")
    units = [Unit(path, shop.secret / f"{path.stem}.rt.o", "c", RUNTIME_FLAGS, path.name) for path in runtime]
    units.append(_unit(shop, stub, shop.secret / "secret_stub.o", interface.language))
    for path, target in zip(project.sources, _developer_objects(shop), strict=True):
        if language_of(path) != "rust":
            units.append(_unit(shop, path, target, language_of(path)))
    compile_secret(shop.tools, project.root, units)
    return [unit.object for unit in units]


def _developer_objects(shop: Workshop) -> list[Path]:
    return [shop.secret / f"{number}-{path.stem}.o" for number, path in enumerate(shop.project.sources)]


def _unit(shop: Workshop, source: Path, target: Path, language: str) -> Unit:
    flags = (*shop.includes(), *shop.project.flags(language))
    return Unit(source, target, language, flags, source.name if source.is_absolute() else source.as_posix())


def _build_public(
    shop: Workshop, interface: Interface, image: FlatImage, binary_id: bytes
) -> tuple[Path, Path]:
    project = shop.project
    header = image.header
    offsets = image_table(memoryview(image.plaintext), header.function_offset, header.export_count)
    binding = PublicBinding(
        name=project.file.name,
        secret_binary_id=binary_id,
        interface_digest=interface.digest(),
        image_bytes=header.span_bytes,
        function_offsets=tuple(int(offset) for offset in offsets),
    )
    stub = shop.public / f"public_stub.{_suffix(interface)}"
    stub.write_text(public_stub_source(interface, binding))
    units = [
        Unit(path, shop.public / f"{path.stem}.guest.o", "c", (), path.name)
        for path in sorted(GUEST.glob("*.c"))
    ]
    units.append(_unit(shop, stub, shop.public / "public_stub.o", interface.language))
    compile_public(shop.tools, project.root, units)
    return link_public(shop.tools, [unit.object for unit in units], project.file.name, shop.output)


def _suffix(interface: Interface) -> str:
    return "cc" if interface.language == "c++" else "c"


def _check_leaks(shop: Workshop, interface: Interface, libraries: tuple[Path, ...]) -> LeakReport:
    """Refuse, and remove, libraries that hold a secret byte."""
    public = (*interface.functions, *interface.callbacks)
    exported = [function.symbol for function in public]
    names = shop.public / "names"  # `assert` and __func__ put these in the secret code as strings
    named = dict.fromkeys([*exported, *(function.display for function in public)])
    names.write_bytes(b"\0".join(name.encode() for name in ["", *named, ""]))
    headers = [shop.project.root / path for path in shop.project.headers]
    report = check_leaks(
        _developer_objects(shop),
        libraries,
        exported=exported,
        known=[*sorted(shop.public.glob("*.guest.o")), *headers, names],
        waivers=shop.project.file.waivers,
    )
    try:
        report.verify()
    except LeakError:
        for library in libraries:
            library.unlink(missing_ok=True)
        raise
    return report
