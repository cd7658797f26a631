"""Debug builds: symbols stay with the developer, gdb sees the source, and crashes come back as lines."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from enclave_caller import Caller, Reply

from cafe_lib.image.confidential import parse_confidential
from cafe_lib.image.manifest import DEBUG, PRODUCTION
from cafe_lib.image.package import open_package, unwrap_confidential
from cafe_lib.toolchain.build import BuildResult, build_project
from cafe_lib.toolchain.keys import PublisherIdentity
from cafe_lib.toolchain.project import load_project
from cafe_lib.toolchain.record import read_record
from cafe_lib.toolchain.symbolize import Report, Symbolizer
from hypervisor_agent.enclave.backend import choose_backend
from hypervisor_agent.enclave.gdbaddress import Gdb
from hypervisor_agent.enclave.process import SparePool
from hypervisor_agent.loader.load import ImageLoader
from hypervisor_agent.plan import EnclavePlan
from hypervisor_agent.service import PooledStarter

HEADER = """\
#include <cafe.h>
#include <stdint.h>
CAFE_SECRET int64_t price(const char *customer CAFE_STR(32), uint32_t amount);
CAFE_SECRET int32_t crash(int32_t how);
"""
SOURCE = """\
#include "a.h"
#include <string.h>
struct rate { uint32_t percent, floor; };
static int64_t apply_rate(uint32_t amount, const struct rate *rate) {
    int64_t kept = (int64_t)amount * (100 - rate->percent) / 100;
    return kept < rate->floor ? rate->floor : kept;
}
int64_t price(const char *customer, uint32_t amount) {
    struct rate rate = {(uint32_t)strlen(customer), 5};
    return apply_rate(amount, &rate);
}
int32_t crash(int32_t how) {
    if (how == 7) {
        *(volatile int *)8 = 1;
    }
    return how;
}
"""
Start = Callable[[BuildResult], Caller]


def make(root: Path, publisher: PublisherIdentity, mode: str, flags: str = "[]") -> BuildResult:
    root.mkdir(parents=True, exist_ok=True)
    (root / "a.h").write_text(HEADER)
    (root / "a.c").write_text(SOURCE)
    text = f'name = "app"\nversion = "1"\nsources = ["a.c"]\nheaders = ["a.h"]\ncflags = {flags}\n'
    (root / "cafe.toml").write_text(text + "deadline_ms = 2000\n[memory]\nbulk = 0\n")
    return build_project(load_project(root, mode), publisher, lambda _: None)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def debug(publisher: PublisherIdentity, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return make(tmp_path_factory.mktemp("debug"), publisher, "debug")


def image_of(built: BuildResult) -> Path:
    return built.package.parent / "secret" / "image.elf"


def sections(path: Path) -> str:
    return subprocess.run(["objdump", "-h", path], capture_output=True, text=True, check=True).stdout


@pytest.mark.case("D01")
@pytest.mark.parametrize("mode", ["debug", "production"])
def test_debug_information_stays_with_the_developer(
    mode: str, publisher: PublisherIdentity, tmp_path: Path
) -> None:
    built = make(tmp_path, publisher, mode, '["-g3", "-gsplit-dwarf", "-DMARK_OF_THE_FLAGS"]')
    assert built.manifest.build_mode == (DEBUG if mode == "debug" else PRODUCTION)
    assert read_record(built.package.parent).mode == mode
    assert ".debug_info" in sections(image_of(built))
    for library in (built.static_library, built.shared_library):
        assert ".debug_" not in sections(library)
    for shipped in (built.package, built.static_library, built.shared_library):
        data = shipped.read_bytes()
        assert not any(word in data for word in (b"apply_rate", b"MARK_OF_THE_FLAGS", b"percent", b"a.c\0"))
    assert not any(word in built.image.plaintext for word in (b"apply_rate", b"percent", b".debug"))


def test_debug_information_changes_no_byte_of_a_package(publisher: PublisherIdentity, tmp_path: Path) -> None:
    first = make(tmp_path / "first", publisher, "production")
    second = make(tmp_path / "second" / "elsewhere", publisher, "production", '["-g3"]')
    assert first.package.read_bytes() == second.package.read_bytes()
    assert first.secret_binary_id == second.secret_binary_id


def test_a_developers_optimisation_outranks_that_of_debug_builds(
    publisher: PublisherIdentity, tmp_path: Path
) -> None:
    plain = make(tmp_path / "plain", publisher, "debug").image.plaintext
    same = make(tmp_path / "same", publisher, "debug", '["-Og"]').image.plaintext
    other = make(tmp_path / "other", publisher, "debug", '["-O3"]').image.plaintext
    assert plain == same
    assert plain != other


def test_a_crash_comes_back_as_a_line(start: Start, debug: BuildResult) -> None:
    caller = start(debug)
    assert caller.call("price", b"globex\0", 1000).value == 940
    caller.call("crash", 7)
    outcome = caller.enclave.wait(20)
    assert outcome is not None
    (explained,) = Symbolizer(debug.package.parent).explain(
        [Report(debug.secret_binary_id.hex()[:16], outcome.image_offset)]
    )
    line = SOURCE.split("\n").index("        *(volatile int *)8 = 1;") + 1
    assert [(frame.function, frame.place) for frame in explained.frames] == [("crash", f"a.c:{line}")]


def test_the_runtime_has_names_and_lines_too(debug: BuildResult) -> None:
    one = Symbolizer(debug.package.parent)
    found = {symbol.name: symbol.offset for symbol in one._symbols.symbols}
    (explained,) = one.explain([Report(debug.secret_binary_id.hex(), found["rt_entry"])])
    assert explained.frames[0].file == "cafe/runtime/rt_main.c"


# -------------------------------------------------------------- gdb

needs_gdb = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is absent")


def plan_of(built: BuildResult, publisher: PublisherIdentity) -> EnclavePlan:
    package = open_package(built.package)
    plain = unwrap_confidential(publisher.secret, package.cose, package.blob)
    loader = ImageLoader(package.manifest, parse_confidential(plain))
    for index, chunk in enumerate(package.chunks()):
        loader.take_chunk(index, chunk)
    return loader.finish()


@dataclass
class Debuggable:
    """An agent's way to start enclaves where gdb is served."""

    starter: PooledStarter
    address: str

    def gdb(self, built: BuildResult, *commands: str) -> str:
        """Run gdb as docs/how-to/developer.md says."""
        first = ["set pagination off", "set confirm off", f"file {image_of(built)}"]
        words = [*first, f"target remote {self.address}", *commands]
        command = ["gdb", "-nx", "-batch", *(word for one in words for word in ("-ex", one))]
        root = built.package.parent.parent
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=40, check=False)
        return done.stdout + done.stderr


@pytest.fixture
def debuggable(tmp_path: Path) -> object:
    backend = choose_backend("emulator")
    pools = SparePool(backend), SparePool(backend.with_gdb(Gdb(f"unix:{tmp_path}/gdb", wait=True)))
    yield Debuggable(PooledStarter(*pools), f"{tmp_path}/gdb")
    for pool in pools:
        pool.close()


@needs_gdb
def test_gdb_stops_in_a_secret_function_of_a_debug_build(
    debuggable: Debuggable, debug: BuildResult, publisher: PublisherIdentity
) -> None:
    caller = Caller(debug, debuggable.starter.start(plan_of(debug, publisher)))
    replies: list[Reply] = []
    call = threading.Thread(target=lambda: replies.append(caller.call("price", b"globex\0", 1000)))
    call.start()
    said = debuggable.gdb(
        debug,
        *("break price", "continue", "print customer", "break apply_rate", "continue", "backtrace"),
        *("print amount", "print *rate", "shell sleep 3", "list", "finish", "delete", "detach"),
    )
    call.join(30)
    caller.close()
    assert "Breakpoint 1, price (customer=" in said
    assert '"globex"' in said
    assert "Breakpoint 2, apply_rate (amount=" in said
    assert "rt_serve" in said  # the whole way from the runtime's loop
    assert "= 1000" in said
    assert "{percent = 6, floor = 5}" in said
    assert "int64_t kept" in said
    assert "Value returned is" in said
    assert "= 940" in said
    assert [reply.value for reply in replies] == [940]  # though it stood for longer than its deadline


@needs_gdb
@pytest.mark.case("C06")
def test_a_production_build_gets_no_stub(
    debuggable: Debuggable, publisher: PublisherIdentity, tmp_path: Path
) -> None:
    built = make(tmp_path / "production", publisher, "production")
    plan = plan_of(built, publisher)
    assert not plan.debug
    caller = Caller(built, debuggable.starter.start(plan))
    assert not os.path.lexists(debuggable.address)
    assert caller.call("price", b"globex\0", 1000).value == 940  # nobody is waited for
    assert "detach" not in debuggable.gdb(built, "detach")
    caller.close()


@needs_gdb
def test_killing_from_gdb_ends_the_enclave(
    debuggable: Debuggable, debug: BuildResult, publisher: PublisherIdentity
) -> None:
    enclave = debuggable.starter.start(plan_of(debug, publisher))
    debuggable.gdb(debug, "kill")
    outcome = enclave.wait(20)
    assert outcome is not None
    enclave.destroy()


@needs_gdb
def test_two_debug_enclaves_share_one_address_by_turns(
    debuggable: Debuggable, debug: BuildResult, publisher: PublisherIdentity
) -> None:
    first = debuggable.starter.start(plan_of(debug, publisher))
    second = Caller(debug, debuggable.starter.start(plan_of(debug, publisher)))
    assert second.call("price", b"globex\0", 100).value == 94  # without a stub it does not wait
    first.destroy()
    third = debuggable.starter.start(plan_of(debug, publisher))
    assert "price" in debuggable.gdb(debug, "info line price", "detach")
    third.destroy()
    second.close()
