"""Rust and Python generated for random headers: clean, and with structs laid out as the C compiler does."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cafe_lib.interface.model import Interface
from cafe_lib.interface.parse import parse_header
from cafe_lib.interface.records import Record, Records, read_records
from cafe_lib.toolchain.bind_python import python_binding
from cafe_lib.toolchain.bind_python_types import PythonNames
from cafe_lib.toolchain.bind_rust import rust_binding, rust_name, rust_secret_crate

INCLUDE = Path(__file__).resolve().parents[2] / "cafe_lib" / "include"
SEEDS = range(12)
SCALARS = (
    *("char", "signed char", "unsigned char", "short", "uint16_t", "int", "unsigned", "long", "uint64_t"),
    *("float", "double", "bool", "enum colour", "size_t", "shade"),
)
AWKWARD = ("long double", "_Complex float", "__int128")  # C only: the record shows its bytes
NAMES = (
    *("a", "b", "type", "self", "list", "bytes", "value", "x", "in"),
    *("match", "ctypes", "_c", "name", "len", "t"),
)
HEAD = """#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "cafe.h"
enum colour { RED, GREEN = 7, mro = 9, async = 11 };
typedef enum { LIGHT = -1, DARK } shade;
enum { LIMIT = 4000000000 };
"""
needs_rustc = pytest.mark.skipif(shutil.which("rustc") is None, reason="there is no rustc")


class Writer:
    """Writes one random header that is in order, with structs s0, s1, ..."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - test data
        self.structs: list[str] = []

    def header(self) -> str:
        text = HEAD + "".join(self._struct(index) for index in range(6))
        functions = (self._function(f"f{index}", secret=True) for index in range(6))
        callbacks = (self._function(f"c{index}", secret=False) for index in range(3))
        return text + "".join([*functions, *callbacks])

    def _struct(self, index: int) -> str:
        kind = "union" if self.random.random() < 0.15 else "struct"
        names = self.random.sample(NAMES, self.random.randint(1, 5))
        members = "".join(f"    {self._member(name)};\n" for name in names)
        packed = " __attribute__((packed))" if self.random.random() < 0.1 else ""
        self.structs.append(f"{kind} s{index}")
        return f"{kind} s{index} {{\n{members}}}{packed};\n"

    def _member(self, name: str) -> str:
        chance = self.random.random()
        if chance < 0.05:
            return f"{self.random.choice(AWKWARD)} {name}"
        if chance < 0.1:
            return f"unsigned {name} : {self.random.randint(1, 31)}"
        if chance < 0.2:
            return f"union {{ float f; uint64_t u[2]; }} {name}"
        size = self.random.choice(("", "", "[3]", "[2][4]"))
        return f"{self.random.choice((*SCALARS, *self.structs))} {name}{size}"

    def _function(self, name: str, *, secret: bool) -> str:
        kinds = (*SCALARS, *self.structs)
        result = self.random.choice(("void", *kinds))
        params = ["unsigned n"]
        for index, text in enumerate(self.random.sample(NAMES, self.random.randint(0, 5))):
            params.append(self._param(f"{text}{index}" if self.random.random() < 0.5 else text, kinds))
        return f"{'CAFE_SECRET' if secret else 'CAFE_CALLBACK'} {result} {name}({', '.join(params)});\n"

    def _param(self, name: str, kinds: tuple[str, ...]) -> str:
        kind = self.random.choice(kinds)
        count = self.random.choice(("1", "n", "2 * n + 1", "n << 1", "n > 3 ? 3 : n", "~n / 2 & 7", "!n"))
        notes = (
            f"{kind} {name}",
            f"const {kind} *{name} CAFE_IN({count})",
            f"{kind} *{name} CAFE_OUT({count})",
            f"{kind} *{name} CAFE_INOUT({count})",
            f"const char *{name} CAFE_STR(20)",
            f"void *{name} CAFE_OPAQUE",
            f"const void *{name} CAFE_IN({count})",
            f"int (*{name})[3] CAFE_OUT({count})",
        )
        return self.random.choice(notes)


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, tuple[Interface, Records]]:
    found = {}
    for seed in SEEDS:
        path = tmp_path_factory.mktemp("header") / f"h{seed}.h"
        path.write_text(Writer(seed).header())
        found[path] = (parse_header(path), read_records([path]))
    return found


def plain(records: Records) -> list[Record]:
    """List records that were named in the header and whose members are shown."""
    return [one for one in records.records.values() if one.members is not None and one.spelling]


def parse_rows(text: str) -> dict[str, list[int]]:
    """Read lines of a name and numbers."""
    return {words[0]: [int(word) for word in words[1:]] for words in map(str.split, text.splitlines())}


def c_layout(header: Path, records: Records) -> dict[str, list[int]]:
    """Ask the C compiler for size, alignment and offsets of every named record."""
    rows = []
    for one in records.records.values():
        tag = f"{'union' if one.union else 'struct'} {one.name}"
        values = [f"sizeof({tag})", f"_Alignof({tag})"]
        values += [f"offsetof({tag}, {member.name})" for member in one.members or ()]
        text = " ".join([one.name, *("%zu" for _ in values)])
        rows += [f'printf("{text}\\n", {", ".join(values)});'] if one.spelling else []
    source, program = header.with_suffix(".c"), header.with_suffix(".layout")
    head = f'#include "{header.name}"\n#include <stdio.h>\nint main(void) {{\n'
    source.write_text("\n".join([head, *rows, "}\n"]))
    subprocess.run(["gcc", f"-I{INCLUDE}", source, "-o", program], check=True)
    return parse_rows(subprocess.run([program], capture_output=True, check=True, text=True).stdout)


def test_records_are_read_as_the_compiler_has_them(headers: dict[Path, tuple[Interface, Records]]) -> None:
    shown = 0
    for header, (_, records) in headers.items():
        layout = c_layout(header, records)
        for one in records.records.values():
            if one.spelling:
                offsets = [member.offset for member in one.members or ()]
                assert layout[one.name] == [one.size, one.align, *offsets]
        shown += len(plain(records))
    assert shown > len(SEEDS) * 2


@needs_rustc
@pytest.mark.slow
def test_rust_compiles_without_a_warning_and_has_the_same_layout(
    headers: dict[Path, tuple[Interface, Records]],
) -> None:
    for header, (interface, records) in headers.items():
        library = header.with_suffix(".a")  # an archive with nothing in it: only layouts are asked for
        subprocess.run(["ar", "rc", header.parent / f"lib{library.stem}.a"], check=True)
        binding, crate = header.with_suffix(".rs"), header.with_suffix(".secret.rs")
        binding.write_text(rust_binding(interface, records, header.stem))
        crate.write_text(rust_secret_crate(interface, records))
        flags = ["--edition=2021", "-Dwarnings"]
        secret = [*flags, "-Cpanic=abort", "--crate-type=lib", "--crate-name=cafe", "--emit=metadata"]
        subprocess.run(["rustc", *secret, f"--out-dir={header.parent}", crate], check=True)
        main, program = header.parent / "main.rs", header.parent / "main"
        main.write_text(rust_offsets(binding, records))
        subprocess.run(["rustc", *flags, f"-L{header.parent}", main, "-o", program], check=True)
        done = subprocess.run([program], capture_output=True, check=True, text=True)
        assert parse_rows(done.stdout) == {
            one.name: [one.size, *(member.offset for member in one.members or ())] for one in plain(records)
        }


def rust_offsets(binding: Path, records: Records) -> str:
    """Write a program that prints what c_layout does, without alignments: the binding asserts those."""
    lines = [f'#[path = "{binding}"]', "mod h;", "fn main() {"]
    for one in plain(records):
        lines.append(f"let space = std::mem::MaybeUninit::<h::{one.name}>::zeroed();")
        lines.append("let p = space.as_ptr();")
        lines.append(f'print!("{one.name} {{}}", std::mem::size_of::<h::{one.name}>());')
        for member in one.members or ():
            place = f"unsafe {{ std::ptr::addr_of!((*p).{rust_name(member.name)}) as usize }}"
            lines.append(f'print!(" {{}}", {place} - p as usize);')
        lines.append("println!();")
    return "\n".join([*lines, "}\n"])


@pytest.mark.slow
def test_python_is_clean_for_mypy_and_has_the_same_layout(
    headers: dict[Path, tuple[Interface, Records]], tmp_path: Path
) -> None:
    stub = "int cafe_last_error(void) { return 0; }\nconst char *cafe_error_message(void) { return 0; }\n"
    stub += "void *cafe_alloc(const char *n, unsigned long b) { return 0; }\nvoid cafe_free(void *m) {}\n"
    stub += "int cafe_set_callback(const char *n, void (*f)(void)) { return 0; }\n"
    for header, (interface, records) in headers.items():
        functions = "".join(f"void {one.name}(void) {{}}\n" for one in interface.functions)
        source = tmp_path / f"{header.stem}.c"
        source.write_text(stub + functions)
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-w", source, "-o", tmp_path / f"lib{header.stem}.so"], check=True
        )
        (tmp_path / f"{header.stem}.py").write_text(python_binding(interface, records, header.stem))
    modules = sorted(tmp_path.glob("*.py"))
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path / 'cache'}"]
    done = subprocess.run([*mypy, *modules], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stdout
    for header, (_, records) in headers.items():
        assert python_layout(header.stem, records, tmp_path) == {
            one.name: [one.size, *(member.offset for member in one.members or ())] for one in plain(records)
        }


def python_layout(module: str, records: Records, directory: Path) -> dict[str, list[int]]:
    names = PythonNames(records)
    wanted = {one.name: [names.inner(member.name) for member in one.members or ()] for one in plain(records)}
    script = (
        f"import ctypes, json, {module} as m\n"
        f"wanted = {wanted!r}\n"
        "show = lambda k, ns: [ctypes.sizeof(k), *(getattr(k, n).offset for n in ns)]\n"
        "kinds = {n: getattr(m, '_T_' + n) for n in wanted}\n"
        "[repr(k()) for k in kinds.values()]\n"
        "for n, ns in wanted.items():\n    print(n, *show(kinds[n], ns))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=directory, capture_output=True, check=True, text=True
    )
    return parse_rows(done.stdout)
