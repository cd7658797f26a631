"""A Rust program inside an enclave: heap, formatting, panics, random bytes, callbacks, C beside it."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from enclave_caller import Caller
from enclave_door import Door

from cafe_lib.errors import BuildError
from cafe_lib.toolchain.build import BuildResult, build_project
from cafe_lib.toolchain.keys import PublisherIdentity
from cafe_lib.toolchain.leak import check_leaks
from cafe_lib.toolchain.leak_patterns import LeakKind
from cafe_lib.toolchain.project import load_project
from hypervisor_agent.abi import Status

pytestmark = pytest.mark.skipif(shutil.which("rustc") is None, reason="there is no rustc")

KIT = Path(__file__).parent / "rust_kit"
ITEM = struct.Struct("<I4xd8s")
Build = Callable[[Path], BuildResult]

PYTHON = """\
import ctypes
import rust_kit as kit

calls = []

def price(item):
    calls.append(item)
    if item == 7:
        raise KeyError(item)
    return 100 + item

kit.set_kit_price(price)
print(kit.kit_bill(1, 4), calls)
try:
    kit.kit_bill(6, 9)
except KeyError as error:
    print("raised", error, calls[3:])
squares = [kit.kit_item(kit.kit_shape.KIT_SQUARE, side, b"sq") for side in (1.0, 3.0, 2.0)]
area, largest = kit.kit_area(squares)
print(area, largest)
print(kit.kit_scaled(largest, 2.5).size)
good, data = kit.kit_random(32)
print(good, len(data), data != bytes(32))
mistakes = ((kit.kit_bill, -1, 2), (kit.kit_count, [2**32], 10), (kit.kit_random, 2**32))
for function, *arguments in mistakes:
    try:
        function(*arguments)
    except OverflowError as error:
        print("OverflowError")
try:
    kit.kit_at(3)
except kit.CafeCallError as error:
    print(kit.CafeStatus(error.status).name, error.function)
print(kit.kit_at(2))
"""


@pytest.fixture
def kit(build: Build, start: Callable[[BuildResult], Caller]) -> Caller:
    return start(build(KIT))


def test_maps_and_formatting(kit: Caller) -> None:
    reply = kit.call("kit_count", struct.pack("<5I", 255, 1, 255, 7, 1), 5, 64, 64)
    assert (reply.value, reply.outs["text"].rstrip(b"\0")) == (3, b"1:2.0,7:1.0,ff:2.0")


@pytest.mark.parametrize(
    ("name", "value"), [("kit_at", 3), ("kit_too_much", 1 << 40), ("kit_too_much", 1 << 63)]
)
def test_a_panic_and_no_memory_end_the_enclave_with_abort(kit: Caller, name: str, value: int) -> None:
    assert kit.call(name, value).status is Status.ABORT


def test_indices_inside_are_fine(kit: Caller) -> None:
    assert [kit.call("kit_at", index).value for index in range(3)] == [10, 20, 30]


def test_structs_by_pointer_and_by_value(kit: Caller) -> None:
    items = [ITEM.pack(1, 2.0, b"square"), ITEM.pack(2, 3.0, b"circle"), ITEM.pack(9, 100.0, b"none")]
    reply = kit.call("kit_area", b"".join(items), 3, ITEM.size)
    assert (reply.value, ITEM.unpack(reply.outs["largest"])) == (31.0, (2, 3.0, b"circle\0\0"))
    scaled = kit.call("kit_scaled", items[0], 2.5).value
    assert ITEM.unpack(scaled) == (1, 5.0, b"square\0\0")


def test_random_bytes_c_beside_it_and_alignment(kit: Caller) -> None:
    first, second = (kit.call("kit_random", 64, 64) for _ in range(2))
    assert (first.value, second.value) == (1, 1)
    assert first.outs["bytes"] != second.outs["bytes"]
    assert kit.call("kit_from_c", -21).value == -41
    assert kit.call("kit_aligned").value == sum(range(1, 10))


def test_a_python_program_serves_callbacks(build: Build, door: Callable[[BuildResult], Door]) -> None:
    built = build(KIT)
    done = door(built).run(sys.executable, "-c", PYTHON, PYTHONPATH=str(built.package.parent / "python"))
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "306 [1, 2, 3]",
        "raised 7 [6, 7, 8]",
        "14.0 kit_item(shape=1, size=3.0, name=b'sq')",
        "7.5",
        "True 32 True",
        *["OverflowError"] * 3,
        "ABORT kit_at",
        "30",
    ]


def test_the_same_sources_give_the_same_package(
    build: Build, publisher: PublisherIdentity, tmp_path: Path
) -> None:
    other = tmp_path / "somewhere else" / "copy"
    shutil.copytree(KIT, other)
    again = build_project(load_project(other), publisher, lambda _: None)
    assert again.package.read_bytes() == build(KIT).package.read_bytes()
    assert str(tmp_path).encode() not in again.image.plaintext


HEADER = "#include <cafe.h>\n#include <stdint.h>\nCAFE_SECRET int32_t twice(int32_t x);\n"
SOURCE = '#![no_std]\n#[no_mangle]\npub extern "C" fn twice(x: i32) -> i32 {\n    2 * x\n}\n'


def attempt(root: Path, source: str, publisher: PublisherIdentity, extra: str = "") -> BuildResult:
    toml = 'name = "app"\nversion = "1.0"\nsources = ["a.rs"]\nheaders = ["a.h"]\n' + extra
    for name, text in (("a.rs", source), ("a.h", HEADER), ("cafe.toml", toml)):
        (root / name).write_text(text)
    return build_project(load_project(root), publisher, lambda _: None)


@pytest.mark.parametrize(
    ("source", "extra", "mentions"),
    [
        (SOURCE.replace("#![no_std]", ""), "", "no_std"),
        (SOURCE.replace("2 * x", "2 * y"), "", "a.rs:4"),
        (SOURCE.replace("x: i32", "x: i64").replace("2 * x", "2"), "", "a.h:3"),
        (SOURCE.replace("-> i32", "-> u32").replace("2 * x", "2"), "", "a.h:3"),
        (SOURCE.replace("pub ", ""), "", "private"),
        (SOURCE.replace("#[no_mangle]\n", ""), "", "twice"),
        (SOURCE, 'rustflags = ["-Ctarget-feature=+avx512f"]', "AVX-512"),
        (SOURCE, 'rustflags = ["--no-such-option"]', "no-such-option"),
    ],
    ids=["std", "wrong", "parameter", "result", "private", "mangled", "avx512", "flag"],
)
def test_what_is_refused(
    source: str, extra: str, mentions: str, publisher: PublisherIdentity, tmp_path: Path
) -> None:
    with pytest.raises(BuildError) as caught:
        attempt(tmp_path, source, publisher, extra)
    assert mentions in caught.value.detail


def test_without_rustc_the_hint_says_what_to_install(
    publisher: PublisherIdentity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("gcc", "g++", "ld", "ar", "as", "objdump", "objcopy"):
        (tools / name).symlink_to(shutil.which(name) or name)
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(BuildError) as caught:
        attempt(tmp_path, SOURCE, publisher)
    assert "rustc" in caught.value.hint


def test_the_isa_level_follows_the_flags(publisher: PublisherIdentity, tmp_path: Path) -> None:
    assert attempt(tmp_path, SOURCE, publisher).manifest.isa == 1
    assert attempt(tmp_path, SOURCE, publisher, 'rustflags = ["-Ctarget-cpu=x86-64-v2"]').manifest.isa == 2
    assert attempt(tmp_path, SOURCE, publisher, 'isa = "x86-64-v3"').manifest.isa == 3


PLANTED = """#![no_std]
static WORDS: [&str; 3] = ["m0jit0!", "the formula of the planted drink", "p4ssw0rd"];
static TABLE: [u8; 32] = *b"\\x9e\\x3c\\x4b\\x5a\\x69\\x78\\x87\\x96planted-table-of-2026-xy";
#[inline(never)]
fn planted_step(x: u64, i: usize) -> u64 {
    (x ^ u64::from(TABLE[i & 31])).wrapping_mul(0x9e3c4b5a69788796).rotate_left(i as u32 % 17) ^ i as u64
}
#[no_mangle]
pub extern "C" fn planted_public(i: usize) -> u64 {
    (0..i).fold(u64::from(WORDS[i % 3].as_bytes()[i % 7]), planted_step)
}
"""


@pytest.mark.case("D01")
def test_the_leak_check_knows_what_rust_objects_hold(tmp_path: Path) -> None:
    (tmp_path / "planted.rs").write_text(PLANTED)
    flags = ["--crate-type=lib", "--emit=obj", "-Copt-level=2", "-Cpanic=abort", "-Ccodegen-units=1"]
    subprocess.run(["rustc", *flags, "planted.rs", "-o", "planted.o"], cwd=tmp_path, check=True)
    found, public = tmp_path / "planted.o", tmp_path / "public.bin"
    table = bytes.fromhex("9e3c4b5a69788796") + b"planted-table"
    for data, kind in (
        (b"m0jit0!", LeakKind.STRING),
        (b"the formula of the planted drink", LeakKind.STRING),
        (b"p4ssw0rd", LeakKind.STRING),
        (table, LeakKind.CONSTANT),
        (0x9E3C4B5A69788796.to_bytes(8, "little"), LeakKind.WORD),
    ):
        public.write_bytes(bytes(40) + data + bytes(40))
        report = check_leaks([found], [public], exported=["planted_public"])
        assert kind in {match.kind for match in report.matches}
    public.write_bytes(b"\0planted_public\0m0jit0\0the formula\0")
    assert not check_leaks([found], [public], exported=["planted_public"]).matches
