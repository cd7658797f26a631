"""Compiles secret code in Rust: each source is the root of a `no_std` crate; one static library holds all.

Crate `cafe` (heap, panics, the header's types) comes first, then the developer's crates, then a root that
joins them and in which the compiler compares every secret function's signature with the header's.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from cafe_lib.errors import BuildError
from cafe_lib.interface.model import Function, Interface
from cafe_lib.interface.records import Records
from cafe_lib.toolchain.bind_rust import rust_image_root, rust_secret_crate
from cafe_lib.toolchain.compile import PACKAGE_ROOT, language_of, run
from cafe_lib.toolchain.project import Project

TARGET: Final = "x86_64-unknown-linux-gnu"
ALLOC_STABLE: Final = (1, 68)
NO_STD: Final = re.compile(r"^\s*#!\s*\[[^\n]*\bno_std\b", re.MULTILINE)
MAX_SOURCE_BYTES: Final = 16 << 20
# What secret code must be whatever the developer's flags say, so these come last.
RUST_FLAGS: Final = (
    "--edition=2021",
    f"--target={TARGET}",
    "-Cpanic=abort",
    "-Ccodegen-units=1",
    "-Cembed-bitcode=no",
    "-Cmetadata=cafe",
    "-Cdebuginfo=2",  # stays in image.elf
)


@dataclass(frozen=True, slots=True)
class RustCrate:
    """One crate of the developer's: its root, and where its object goes (for the leak check)."""

    source: Path
    object: Path
    name: str  # says nothing about the source: it becomes part of symbols

    @property
    def library(self) -> Path:
        """Where rustc puts the crate for others to use."""
        return self.object.with_name(f"lib{self.name}.rlib")


class RustCompiler:
    """rustc with the flags of one build, run in the project's directory."""

    def __init__(self, root: Path, output: Path, flags: Sequence[str], relocations: str) -> None:
        rustc, objcopy = shutil.which("rustc"), shutil.which("objcopy")
        if rustc is None or objcopy is None:
            raise BuildError("secret sources in Rust, but no rustc", hint="apt install rustc binutils")
        self.rustc, self.objcopy, self.root, self.output = rustc, objcopy, root, output
        version = re.match(r"rustc (\d+)\.(\d+)", run([rustc, "--version"], root))
        # Up to 1.67, what happens when `alloc` gets no memory is said with a feature that was stable later.
        self.old = version is not None and (int(version[1]), int(version[2])) < ALLOC_STABLE
        fixed = [*RUST_FLAGS, f"-Crelocation-model={relocations}"]
        self.flags = ["-Copt-level=2", *flags, *fixed, *self._prefixes()]

    def _prefixes(self) -> list[str]:
        """Name none of this machine's directories in what is compiled; the last match counts."""
        sysroot = Path(run([self.rustc, "--print", "sysroot"], self.root).strip())
        maps = (
            (sysroot / "lib/rustlib/src/rust", "/rustc"),
            (self.root, "."),
            (PACKAGE_ROOT, "cafe"),
            (self.output, "build"),
        )
        return [f"--remap-path-prefix={real}={name}" for real, name in maps]

    def isa(self) -> int:
        """Return ``enum cafe_isa``: the level that code may use under these flags. Raises BuildError."""
        everything = {"RUSTC_BOOTSTRAP": "1"}  # names unstable features, too: AVX-512 was one for long
        text = run([self.rustc, *self.flags, "--print", "cfg"], self.root, everything)
        features = set(re.findall(r'^target_feature="([^"]+)"$', text, re.MULTILINE))
        if "avx512f" in features:
            hint = "enclaves have up to x86-64-v3: -Ctarget-cpu=x86-64-v3"
            raise BuildError("the flags ask for AVX-512", hint=hint)
        if "avx" in features:
            return 3
        return 2 if "sse4.2" in features else 1

    def compile(
        self, source: Path, name: str, emit: str, externs: Sequence[str] = (), *, kind: str = "lib"
    ) -> None:
        """Compile one crate. Raises BuildError with the compiler's message."""
        crate = (f"--crate-name={name}", f"--crate-type={kind}", f"--emit={emit}")
        extra = {"RUSTC_BOOTSTRAP": "image"} if self.old else {}  # for the crate that joins all, only
        run([self.rustc, *self.flags, *crate, *externs, str(source)], self.root, extra)


def find_rust(project: Project, output: Path, relocations: str = "pie") -> RustCompiler | None:
    """Find rustc if a source needs it; ``relocations``: "pic" for a shared library. Raises BuildError."""
    if not any(language_of(path) == "rust" for path in project.sources):
        return None
    return RustCompiler(project.root, output, project.flags("rust"), relocations)


def rust_crates(project: Project, objects: Sequence[Path]) -> list[RustCrate]:
    """List the sources in Rust; ``objects`` are the targets of all sources, in order."""
    return [
        RustCrate(path, target, f"secret_{number}")
        for number, (path, target) in enumerate(zip(project.sources, objects, strict=True))
        if language_of(path) == "rust"
    ]


def compile_rust(
    compiler: RustCompiler, crates: Sequence[RustCrate], interface: Interface, records: Records
) -> Path:
    """Compile crates and what they need to one static library, and each crate's object beside it.

    :raises BuildError: rustc refused, or a source is no `no_std` crate.
    """
    output = compiler.output
    support, root = output / "cafe.rs", output / "image.rs"
    support.write_text(rust_secret_crate(interface, records))
    cafe = output / "libcafe.rlib"
    compiler.compile(support, "cafe", f"link={cafe}")
    extern = f"--extern=cafe={cafe}"
    for crate in crates:
        _check_no_std(compiler.root, crate.source)
        compiler.compile(crate.source, crate.name, f"link={crate.library},obj={crate.object}", [extern])
    checked = [(crate.name, function) for crate in crates for function in _defined(crate, interface)]
    features = ("default_alloc_error_handler",) if compiler.old else ()
    root.write_text(rust_image_root(checked, [crate.name for crate in crates], records, features))
    library = output / "libimage.a"
    externs = [extern, *(f"--extern={crate.name}={crate.library}" for crate in crates)]
    compiler.compile(root, "image", f"link={library}", externs, kind="staticlib")
    # The precompiled `core` carries LLVM's bitcode, of which other versions' plugins to binutils take fright.
    run([compiler.objcopy, "-R.llvmbc", "-R.llvmcmd", str(library)], output)
    return library


def _check_no_std(root: Path, source: Path) -> None:
    try:
        with (root / source).open("rb") as file:
            text = file.read(MAX_SOURCE_BYTES).decode(errors="replace")
    except OSError as error:
        raise BuildError(f"{source}: {error.strerror}") from error
    if not NO_STD.search(text):
        hint = "name only the crate's root in `sources`, and begin it with #![no_std]: there is no kernel"
        raise BuildError(f"{source}: not the root of a no_std crate", hint=hint)


def _defined(crate: RustCrate, interface: Interface) -> list[Function]:
    """Find the secret functions that the crate's object defines."""
    try:
        with crate.object.open("rb") as file:
            table = ELFFile(file).get_section_by_name(".symtab")
            symbols = [] if table is None else list(table.iter_symbols())
    except (OSError, ELFError, ValueError, KeyError) as error:
        raise BuildError(f"{crate.object.name}: not a readable object file") from error
    names = {symbol.name for symbol in symbols if symbol["st_shndx"] != "SHN_UNDEF"}
    return [function for function in interface.functions if function.symbol in names]
