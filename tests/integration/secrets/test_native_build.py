"""A native build: the whole public API links and behaves, and nobody can take it for a protected one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cafe_lib.errors import BuildError
from cafe_lib.toolchain.native import NativeResult, build_native, sanitize_flags
from cafe_lib.toolchain.project import load_project
from cafe_lib.toolchain.record import read_record

HERE = Path(__file__).parent
HEADER = """\
#include <cafe.h>
#include <stdint.h>
#include <stddef.h>
CAFE_SECRET CAFE_ON_ERROR(-1) int32_t twice(int32_t x);
CAFE_SECRET int32_t add_logged(int32_t a, int32_t b);
CAFE_SECRET CAFE_SERIAL uint32_t sum(const uint8_t *data CAFE_IN(count), size_t count);
CAFE_CALLBACK int32_t record(int32_t value);
"""
SOURCE = """\
#include "a.h"
#include <stdlib.h>
int helper(int x) { return x + x; }
int32_t twice(int32_t x) { return helper(x); }
int32_t add_logged(int32_t a, int32_t b) { return record(a + b); }
uint32_t sum(const uint8_t *data, size_t count) {
    uint8_t *copy = malloc(4);
    uint32_t total = 0;
    for (size_t i = 0; i < count; i++) {
        copy[i] = data[i];
        total += copy[i];
    }
    free(copy);
    return total;
}
"""
MAIN = """\
#include "a.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int helper(int x) { return x * 100; } /* nothing to do with the secret one */
%s
static int32_t other(int32_t value) { return value * 2; }
int main(int argc, char **argv) {
    (void)argv;
    uint8_t *memory = cafe_alloc("app", 8);
    memset(memory, 1, 8);
    printf("%%d %%d %%d ", twice(21), helper(1), add_logged(3, 4));
    printf("%%d ", cafe_set_callback("record", (void (*)(void))other));
    printf("%%d ", add_logged(3, 4));
    printf("%%d ", cafe_set_callback("record", NULL) + cafe_set_callback("nothing", NULL));
    printf("%%d ", cafe_last_error() || cafe_error_message()[0]);
    printf("%%d ", cafe_secret_base("app") != NULL || cafe_secret_size(NULL) != 0);
    printf("%%d ", cafe_secret_address("twice") == (void *)twice && cafe_secret_address("helper") == NULL);
    printf("%%u\\n", sum(memory, argc > 1 ? 8 : 4));
    fflush(stdout);
    add_logged(1, 1);
    cafe_free(memory);
    return 0;
}
"""
RECORD = "int32_t record(int32_t value) { return value + 1; }"
GOOD = "42 100 8 0 14 -1 0 0 1 4\n"


def project(root: Path, text: str = "") -> Path:
    root.mkdir(exist_ok=True)
    (root / "a.h").write_text(HEADER)
    (root / "a.c").write_text(SOURCE)
    (root / "cafe.toml").write_text(
        f'name = "app"\nversion = "1"\nsources = ["a.c"]\nheaders = ["a.h"]\n{text}'
    )
    return root


def make(root: Path, sanitize: str = "", text: str = "") -> NativeResult:
    return build_native(load_project(project(root, text), "native"), lambda _: None, None, sanitize)


def link(built: NativeResult, root: Path, main: str, *, shared: bool) -> Path:
    (root / "main.c").write_text(main)
    program = root / ("shared" if shared else "static")
    library = [f"-L{built.shared_library.parent}", "-lapp", f"-Wl,-rpath,{built.shared_library.parent}"]
    parts = library if shared else [str(built.static_library)]
    command = ["gcc", "-Wall", "-Werror", "-rdynamic", f"-I{built.include_dir}", root / "main.c", *parts]
    subprocess.run([*command, *built.link_flags, "-o", program], check=True, capture_output=True)
    return program


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kind", ["static", "shared"])
def test_the_whole_public_api(tmp_path: Path, kind: str) -> None:
    done = run(link(make(tmp_path), tmp_path, MAIN % RECORD, shared=kind == "shared"))
    assert (done.returncode, done.stdout) == (0, GOOD)
    assert "native build" in done.stderr
    assert "nothing is protected" in done.stderr


@pytest.mark.parametrize("kind", ["static", "shared"])
def test_a_callback_that_nobody_implements_ends_the_process_by_name(tmp_path: Path, kind: str) -> None:
    main = MAIN.replace("add_logged(3, 4));\n    printf(", "7 + 1);\n    printf(", 1)
    done = run(link(make(tmp_path), tmp_path, main % "", shared=kind == "shared"))
    assert done.stdout == GOOD
    assert done.returncode < 0
    assert "calls record" in done.stderr


def test_a_sanitizer_names_the_line(tmp_path: Path) -> None:
    built = make(tmp_path, "address,undefined")
    assert "-fsanitize=address,undefined" in built.link_flags
    program = link(built, tmp_path, MAIN % RECORD, shared=False)
    assert run(program).stdout == GOOD
    done = run(program, "more")
    line = SOURCE.split("\n").index("        copy[i] = data[i];") + 1
    assert "heap-buffer-overflow" in done.stderr
    assert f"a.c:{line}" in done.stderr


def test_flags_of_the_project_may_ask_for_a_sanitizer(tmp_path: Path) -> None:
    built = make(tmp_path, text='cflags = ["-fsanitize=undefined", "-DX=1"]\n')
    assert b"ubsan" in built.shared_library.read_bytes()


@pytest.mark.parametrize("names", ["adress", "address,thread", "memory", "address;rm"])
def test_sanitizers_that_do_not_exist_or_go_together(names: str) -> None:
    with pytest.raises(BuildError):
        sanitize_flags(names)


def test_sanitizers_that_do() -> None:
    assert sanitize_flags("") == sanitize_flags(" , ") == ()
    assert sanitize_flags("address, undefined") == ("-fsanitize=address,undefined",)


def test_cxx_with_exceptions_and_the_standard_library(tmp_path: Path) -> None:
    source = load_project(HERE / "cxx_kit", "native")
    built = build_native(source, lambda _: None, tmp_path / "native")
    main = tmp_path / "main.cc"
    main.write_text('#include "kit.hpp"\nint main() { return kit::statics() == kit::statics() + 1; }\n')
    command = ["g++", f"-I{built.include_dir}", main, built.static_library, *built.link_flags]
    subprocess.run([*command, "-o", tmp_path / "main"], check=True)
    assert run(tmp_path / "main").returncode == 0


def test_it_cannot_be_taken_for_a_protected_one(tmp_path: Path) -> None:
    cafe = Path(sys.executable).with_name("cafe")
    root = project(tmp_path / "app")
    (root / "build" / "native").mkdir(parents=True)
    stale = root / "build" / "native" / "app.cafe"
    stale.write_bytes(b"of an earlier build")
    done = run(cafe, "build", root, "--mode", "native", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["protected"], told["build_mode"]) == (0, False, "native")
    assert "nothing is protected" in done.stderr
    assert "secret_binary_id" not in told
    assert not stale.exists()
    assert not list((root / "build").glob("lib*"))  # where the protected ones are looked for
    assert read_record(root / "build" / "native").mode == "native"
    for library in (told["static_library"], told["shared_library"]):
        seen = json.loads(run(cafe, "inspect", library, "--json").stdout)
        assert (seen["build_mode"], seen["protected"]) == ("native", False)
        assert "cafe_native_build" in run("nm", library).stdout


def test_what_the_command_line_refuses(tmp_path: Path) -> None:
    cafe, root = Path(sys.executable).with_name("cafe"), project(tmp_path / "app")
    for words in (["--mode", "fast"], ["--sanitize", "address"], ["--mode", "native", "--sanitize", "x"]):
        assert run(cafe, "build", root, "--publisher", tmp_path / "none", *words).returncode == 2
    (root / "cafe.toml").write_text((root / "cafe.toml").read_text() + 'build_mode = "native"\n')
    done = run(cafe, "build", root)
    assert done.returncode == 2
    assert "build_mode" in done.stderr
