"""`cafe build` as a whole: what it makes, that it makes it again bit by bit, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from enclave_caller import Caller

from cafe_lib.errors import BuildError, CafeError, ImageError, InterfaceError, KvmError, LeakError
from cafe_lib.image.elf import LinkedImage, flatten
from cafe_lib.image.manifest import verify_manifest
from cafe_lib.image.package import open_package
from cafe_lib.toolchain.build import BuildResult, build_project
from cafe_lib.toolchain.compile import RUNTIME, SECRET_FLAGS, find_toolchain, secret_flags
from cafe_lib.toolchain.keys import PublisherIdentity, create_publisher
from cafe_lib.toolchain.project import load_project
from hypervisor_agent.enclave.process import SparePool

C_KIT, CXX_KIT = Path(__file__).parent / "c_kit", Path(__file__).parent / "cxx_kit"
Build = Callable[[Path], BuildResult]
Start = Callable[[BuildResult], Caller]
HEADER = "#include <cafe.h>\n#include <stdint.h>\nCAFE_SECRET int32_t twice(int32_t x);\n"
SOURCE = '#include "a.h"\nint32_t twice(int32_t x) { return 2 * x; }\n'
TOML = 'name = "app"\nversion = "1.0"\nsources = ["*.c"]\nheaders = ["a.h"]\n'


def project(root: Path, source: str = SOURCE, header: str = HEADER, extra: str = "") -> Path:
    root.mkdir(exist_ok=True)
    for name, text in (("a.c", source), ("a.h", header), ("cafe.toml", TOML + extra)):
        (root / name).write_text(text)
    return root


def make(root: Path, publisher: PublisherIdentity) -> BuildResult:
    return build_project(load_project(root), publisher, lambda _: None)


@pytest.mark.parametrize("kit", [C_KIT, CXX_KIT], ids=["c", "c++"])
def test_the_package_is_the_same_from_another_directory(
    kit: Path, build: Build, publisher: PublisherIdentity, tmp_path: Path
) -> None:
    other = tmp_path / "somewhere else" / "copy"
    shutil.copytree(kit, other)
    again = make(other, publisher)
    first = build(kit)
    assert again.package.read_bytes() == first.package.read_bytes()
    assert again.secret_binary_id == first.secret_binary_id
    assert str(tmp_path).encode() not in again.image.plaintext


def test_another_publisher_s_package_shares_nothing(build: Build, tmp_path: Path) -> None:
    first = build(C_KIT)
    other = build_project(
        load_project(C_KIT), create_publisher(tmp_path / "publisher"), lambda _: None, tmp_path / "build"
    )
    assert other.image.plaintext == first.image.plaintext
    assert not set(other.manifest.chunk_names) & set(first.manifest.chunk_names)


def test_the_manifest_says_what_the_project_does(build: Build, publisher: PublisherIdentity) -> None:
    built = build(C_KIT)
    package = open_package(built.package)
    verified = verify_manifest(package.cose, publisher.public_key)
    assert verified.secret_binary_id == built.secret_binary_id
    assert verified.manifest == built.manifest
    found = verified.manifest
    assert (found.name, found.stack_bytes, found.slot_count, found.isa) == ("c-kit", 65536, 2, 1)
    assert found.interface_digest == built.interface.digest()
    assert found.image_bytes == len(built.image.plaintext)


@pytest.mark.case("D01")
def test_nothing_of_the_image_is_in_what_is_shipped(build: Build) -> None:
    built = build(C_KIT)
    header = built.image.header
    code = built.image.plaintext[header.code_offset : header.code_offset + header.code_bytes]
    windows = {code[i : i + 32] for i in range(0, len(code) - 32, 16) if len(set(code[i : i + 32])) > 12}
    assert len(windows) > 500
    for path in (built.package, built.static_library, built.shared_library):
        data = path.read_bytes()
        assert not any(window in data for window in windows)


@pytest.mark.case("C02")
@pytest.mark.parametrize("kind", [1, 6, 18, 24, 2**32 - 1])
def test_a_relocation_of_unknown_type_is_refused(build: Build, tmp_path: Path, kind: int) -> None:
    """The loader knows one kind only; what else the linker leaves must not get into an image."""
    linked = build(C_KIT).package.parent / "secret" / "image.elf"
    data = bytearray(linked.read_bytes())
    with linked.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".rela.dyn")
        place = section["sh_offset"] + 8  # r_info: the type is its lower half
    struct.pack_into("<I", data, place, kind)
    changed = tmp_path / "image.elf"
    changed.write_bytes(data)
    assert flatten(LinkedImage(linked)).header.reloc_count > 0
    with pytest.raises(ImageError, match=f"relocation of type {kind}"):
        flatten(LinkedImage(changed))


def test_the_runtime_compiles_without_a_warning(tmp_path: Path) -> None:
    tools = find_toolchain()
    for source in sorted(RUNTIME.glob("*.c")):
        warnings = ["-Wall", "-Wextra", "-Wconversion", "-Werror"]
        command = [tools.gcc, *secret_flags(tools, "c"), *SECRET_FLAGS, *warnings]
        done = subprocess.run(
            [*command, "-c", source, "-o", tmp_path / "a.o"], capture_output=True, text=True, check=False
        )
        assert done.stderr == ""


def test_avx_code_says_so_in_the_manifest(publisher: PublisherIdentity, tmp_path: Path) -> None:
    plain = make(project(tmp_path / "v1"), publisher)
    wide = make(project(tmp_path / "v3", extra='isa = "x86-64-v3"'), publisher)
    flag = make(project(tmp_path / "avx", extra='cflags = ["-mavx2"]'), publisher)
    assert [built.manifest.isa for built in (plain, wide, flag)] == [1, 3, 3]


SUM = """\
#include "a.h"
int32_t twice(int32_t x) {
    static int32_t values[64];
    for (int i = 0; i < 64; i++) values[i] = x * i;
    int32_t sum = 0;
    for (int i = 0; i < 64; i++) sum += values[i] * 3;
    return sum;
}
"""


def test_avx_code_runs_where_the_cpu_has_it(
    pool: SparePool, start: Start, publisher: PublisherIdentity, tmp_path: Path
) -> None:
    built = make(project(tmp_path, SUM, extra='isa = "x86-64-v3"\ncflags = ["-O3"]'), publisher)
    if pool.backend.name == "emulator":
        with pytest.raises(CafeError):
            start(built)
        return
    try:
        caller = start(built)
    except KvmError:
        pytest.skip("this KVM offers no AVX")
    assert caller.call("twice", 5).value == 3 * 5 * sum(range(64))
    assert caller.call("twice", 1).value == 3 * sum(range(64))


WIDE_HEADER = """\
#include <cafe.h>
#include <stdint.h>
CAFE_SECRET int32_t dirty(void);
CAFE_SECRET uint64_t upper(void);
"""
WIDE = """\
#include "a.h"
#include <immintrin.h>
int32_t dirty(void) {
    __asm__ volatile("vpcmpeqd %%ymm0, %%ymm0, %%ymm0\\n\\tvmovdqa %%ymm0, %%ymm15" : : :);
    return 1;
}
uint64_t upper(void) {
    uint64_t a[4], b[4];
    __asm__ volatile("vmovdqu %%ymm0, %0\\n\\tvmovdqu %%ymm15, %1" : "=m"(a), "=m"(b));
    return a[2] | a[3] | b[2] | b[3];
}
"""


@pytest.mark.case("B01")
def test_upper_halves_of_vector_registers_are_gone(
    start_kvm: Start, publisher: PublisherIdentity, tmp_path: Path
) -> None:
    built = make(project(tmp_path, WIDE, WIDE_HEADER, 'isa = "x86-64-v3"'), publisher)
    try:
        caller = start_kvm(built)
    except KvmError:
        pytest.skip("this KVM offers no AVX")
    assert caller.call("dirty").value == 1
    assert caller.call("upper").value == 0


MANY = "\n".join(f"CAFE_SECRET int32_t f{i}(int32_t x);" for i in range(30))


def test_entries_keep_the_order_of_the_header(
    start: Start, publisher: PublisherIdentity, tmp_path: Path
) -> None:
    header = f"#include <cafe.h>\n#include <stdint.h>\n{MANY}\n"
    source = '#include "a.h"\n' + "\n".join(
        f"int32_t f{i}(int32_t x) {{ return x + {i}; }}" for i in range(30)
    )
    caller = start(make(project(tmp_path, source, header), publisher))
    assert [caller.call(f"f{i}", 100).value for i in range(30)] == [100 + i for i in range(30)]


ABSOLUTE = '__asm__(".section .text.twice\\n.quad twice\\n");\n'
VERSIONS = """\
#include "a.h"
__attribute__((target_clones("avx2", "default"))) int32_t twice(int32_t x) { return 2 * x; }
int32_t (*const table[1])(int32_t) __attribute__((used)) = {twice};
__attribute__((constructor)) static void use(void) { *(void *volatile *)table; }
"""
UNDEFINED = SOURCE.replace("2 * x", "elsewhere(x)").replace("int32_t", "int elsewhere(int);\nint32_t", 1)
REFUSED = [
    pytest.param({"source": SOURCE.replace("2 * x", "2 * y")}, BuildError, "undeclared", id="compiler"),
    pytest.param({"source": "int unused;\n"}, BuildError, "twice", id="not defined"),
    pytest.param({"source": UNDEFINED}, BuildError, "elsewhere", id="undefined reference"),
    pytest.param({"source": SOURCE + "const char *d = __DATE__;\n"}, BuildError, "date", id="date"),
    pytest.param({"extra": 'cflags = ["-march=x86-64-v4"]'}, BuildError, "AVX-512", id="avx512"),
    pytest.param({"extra": 'cflags = ["-mnonsense"]'}, BuildError, "nonsense", id="flag"),
    pytest.param({"header": HEADER.replace("int32_t x", "char *x")}, InterfaceError, "x", id="pointer"),
    pytest.param({"header": "#include <none.h>\n"}, InterfaceError, "none", id="missing include"),
    pytest.param({"source": SOURCE + ABSOLUTE}, ImageError, "absolute address", id="text relocation"),
    pytest.param({"source": VERSIONS}, ImageError, "several versions", id="constant pointer to ifunc"),
]


@pytest.mark.parametrize(("files", "error", "mentions"), REFUSED)
def test_what_cannot_be_built_is_refused_with_the_reason(
    files: dict[str, str],
    error: type[CafeError],
    mentions: str,
    publisher: PublisherIdentity,
    tmp_path: Path,
) -> None:
    root = project(tmp_path, **files)
    with pytest.raises(error, match=mentions):
        make(root, publisher)


LEAKY = """\
static const unsigned char table[32] = {
    0x5f, 0x1c, 0x99, 0xe2, 0x31, 0x7a, 0xd4, 0x08, 0xb6, 0x4e, 0x2d, 0xf3, 0x65, 0x80, 0xca, 0x17,
    0x0b, 0xe8, 0x46, 0x93, 0xaf, 0x72, 0x3c, 0xd1, 0x54, 0x29, 0xfe, 0x8d, 0x60, 0xb7, 0x13, 0xc5};
__attribute__((used)) static int at(int i) { return table[i & 31]; }
"""


@pytest.mark.case("D01")
def test_a_secret_in_the_header_fails_the_build_unless_waived(
    publisher: PublisherIdentity, tmp_path: Path
) -> None:
    source = SOURCE.replace("2 * x", "2 * x + at(x)")
    with pytest.raises(LeakError) as caught:
        make(project(tmp_path, source, HEADER + LEAKY), publisher)
    assert not list((tmp_path / "build").glob("lib*"))
    waivers = sorted(set(re.findall(r"waiver: ([0-9a-f]{64})", caught.value.detail)))
    built = make(project(tmp_path, source, HEADER + LEAKY, f"waivers = {json.dumps(waivers)}"), publisher)
    assert {match.sha256 for match in built.leaks.waived} == set(waivers)
    assert built.static_library.exists()


def cafe(*words: object) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("cafe")), *(str(word) for word in words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_line(tmp_path: Path) -> None:
    keys, root = tmp_path / "keys", project(tmp_path / "app")
    made = json.loads(cafe("publisher", "init", "--dir", keys, "--json").stdout)
    built = json.loads(cafe("build", root, "--publisher", keys, "--json").stdout)
    seen = json.loads(cafe("inspect", built["package"], "--json").stdout)
    inside = json.loads(cafe("inspect", built["package"], "--publisher", keys, "--json").stdout)
    assert seen["secret_binary_id"] == built["secret_binary_id"]
    assert (seen["signature"], inside["signature"]) == ("not checked", "verified")
    assert seen["publisher"] == made["publisher"]
    assert inside["boundary"] == ["twice(x: value int32_t) -> int32_t"]
    assert len(inside["exports"]) == 1
    assert "boundary" not in seen


def test_exit_codes_and_messages(tmp_path: Path) -> None:
    keys, root = tmp_path / "keys", project(tmp_path / "app", SOURCE.replace("2 * x", "nothing"))
    missing = cafe("build", root, "--publisher", keys)
    assert (missing.returncode, "cafe publisher init" in missing.stderr) == (2, True)
    cafe("publisher", "init", "--dir", keys)
    assert cafe("publisher", "init", "--dir", keys).returncode == 1
    failed = cafe("build", root, "--publisher", keys, "--json")
    assert failed.returncode == 2
    assert json.loads(failed.stdout)["error"]["code"] == "build"
    assert "nothing" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert cafe("inspect", root / "a.c").returncode == 2
    assert cafe("inspect", root / "none.cafe").returncode == 1
    assert cafe("build", "--nonsense").returncode == 2


def test_a_cpp_program_links_the_public_library(build: Build, tmp_path: Path) -> None:
    built = build(CXX_KIT)
    main = tmp_path / "main.cc"
    main.write_text('#include "kit.hpp"\nint main(int n, char **) { return n > 9 ? kit::statics() : 0; }\n')
    command = ["g++", "-Wall", "-Werror", f"-I{built.include_dir}", main, built.static_library, "-pthread"]
    subprocess.run([*command, "-o", tmp_path / "main"], check=True)
    assert subprocess.run([tmp_path / "main"], check=False).returncode == 0


def test_tables_in_the_image_are_absolute(build: Build) -> None:
    image = build(C_KIT).image
    count, place = image.header.export_count, image.header.function_offset
    functions = struct.unpack_from(f"<{count}I", image.plaintext, place)
    assert len(set(functions)) == count
