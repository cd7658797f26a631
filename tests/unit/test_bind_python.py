"""A generated Python module before a plain C library: what goes in, what comes back, what is refused."""

from __future__ import annotations

import array
import ctypes
import errno
import importlib.util
import os
import subprocess
import types
from pathlib import Path

import pytest

from cafe_lib.interface.parse import parse_header
from cafe_lib.interface.records import read_records
from cafe_lib.python.support import CafeStatus
from cafe_lib.toolchain.bind_python import python_binding
from hypervisor_agent.abi import Status

INCLUDE = Path(__file__).resolve().parents[2] / "cafe_lib" / "include"
HEADER = """#include <stdbool.h>
#include <stdint.h>
#include "cafe.h"
struct pair { int32_t a; double b; };
struct text { const uint8_t *data CAFE_IN(n); uint32_t n; const char *name CAFE_STR(9); };
CAFE_CALLBACK CAFE_ON_ERROR(-9) int32_t ask(const char *text CAFE_STR(9), const uint16_t *in CAFE_IN(n),
                                            uint32_t n, uint8_t *out CAFE_OUT(n),
                                            struct pair *pair CAFE_INOUT(1));
CAFE_SECRET CAFE_ON_ERROR(-1) int64_t sum(const int32_t *values CAFE_IN(n), uint32_t n);
CAFE_SECRET CAFE_ON_ERROR(-1) int32_t size(const void *data CAFE_IN(4 * n), uint16_t n);
CAFE_SECRET CAFE_ON_ERROR(-1) int32_t length(const char *text CAFE_STR(99));
CAFE_SECRET void up(uint8_t *bytes CAFE_INOUT(n), uint32_t n, int32_t *step CAFE_INOUT(1));
CAFE_SECRET void squares(uint32_t *out CAFE_OUT(n), uint8_t n);
CAFE_SECRET bool swap(struct pair *pair CAFE_INOUT(1), struct pair *pairs CAFE_OUT(2),
                      bool *flag CAFE_OUT(1));
CAFE_SECRET CAFE_ON_ERROR(-1) int32_t deep(const struct text *text CAFE_IN(1));
CAFE_SECRET CAFE_ON_ERROR(-1) int32_t asks(uint32_t n, uint8_t *out CAFE_OUT(8));
CAFE_SECRET CAFE_ON_ERROR(-1) int32_t fails(int32_t status);
CAFE_SECRET CAFE_ON_ERROR(0) uint64_t handle(void *any CAFE_OPAQUE);
"""
LIBRARY = """#include <errno.h>
#include <stdlib.h>
#include <string.h>
static int last;
static int32_t (*asked)(const char *, const uint16_t *, uint32_t, uint8_t *, struct pair *);
int cafe_last_error(void) { return last; }
const char *cafe_error_message(void) { return last ? "do this" : ""; }
void *cafe_alloc(const char *library, size_t bytes) { return bytes > 1000 ? 0 : malloc(bytes); }
void cafe_free(void *memory) { free(memory); }
int cafe_set_callback(const char *name, void (*function)(void)) {
    if (strcmp(name, "ask"))
        return -1;
    asked = (void *)function;
    return 0;
}
int64_t sum(const int32_t *values, uint32_t n) {
    int64_t total = values ? 0 : -5;
    while (n) total += values[--n];
    return total;
}
int32_t size(const void *data, uint16_t n) { return data ? 4 * n : -n; }
int32_t length(const char *text) { errno = EDOM; return text ? (int32_t)strlen(text) : -1; }
void up(uint8_t *bytes, uint32_t n, int32_t *step) { while (n) bytes[--n] += *step; *step *= 2; }
void squares(uint32_t *out, uint8_t n) { for (int i = 0; i < n; i++) out[i] = i * i; }
bool swap(struct pair *pair, struct pair *pairs, bool *flag) {
    pairs[0] = *pair;
    *pair = (struct pair){(int32_t)pair->b, pair->a};
    *flag = true;
    return pair->a == 7;
}
int32_t deep(const struct text *text) { return text->data[text->n - 1] + (int32_t)strlen(text->name); }
int32_t asks(uint32_t n, uint8_t *out) {
    const uint16_t in[] = {1, 2, 3, 4};
    struct pair pair = {3, 0.5};
    return asked("what", in, n, out, &pair) * 100 + pair.a;
}
int32_t fails(int32_t status) { last = status; return 5; }
uint64_t handle(void *any) { last = 0; return (uint64_t)any + 1; }
"""


@pytest.fixture(scope="module")
def lib(tmp_path_factory: pytest.TempPathFactory) -> types.ModuleType:
    place = tmp_path_factory.mktemp("python")
    header = place / "plain.h"
    header.write_text(HEADER)
    (place / "plain.c").write_text('#include "plain.h"\n' + LIBRARY)
    command = ["gcc", "-shared", "-fPIC", "-w", f"-I{INCLUDE}", "plain.c", "-o", "libplain.so"]
    subprocess.run(command, cwd=place, check=True)
    module = place / "plain.py"
    module.write_text(python_binding(parse_header(header), read_records([header]), "plain"))
    spec = importlib.util.spec_from_file_location("plain", module)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_status_values_are_those_of_the_abi() -> None:
    assert {one.name: one.value for one in CafeStatus} == {
        one.name: one.value for one in Status if one is not Status.OK
    }


def test_numbers_come_from_whatever_holds_them(lib: types.ModuleType) -> None:
    numbers = array.array("i", [1, -2, 30])
    for values in ([1, -2, 30], (1, -2, 30), numbers, bytes(numbers), bytearray(numbers)):
        assert lib.sum(values) == 29
    assert lib.sum(memoryview(numbers)) == 29
    assert lib.sum(memoryview(bytes(numbers))) == 29
    assert lib.sum([]) == 0
    assert lib.sum(None) == -5


@pytest.mark.parametrize("values", [[2**31], [-(2**31) - 1], b"12345", [1.5], "text", 7, [b"x"]])
def test_what_holds_no_such_numbers_is_refused(lib: types.ModuleType, values: object) -> None:
    with pytest.raises((OverflowError, ValueError, TypeError)):
        lib.sum(values)
    with pytest.raises(ValueError, match="contiguous"):
        lib.sum(memoryview(array.array("i", range(9)))[::2])


def test_a_buffer_that_is_too_short_never_reaches_c(lib: types.ModuleType) -> None:
    assert lib.size(bytes(12), 3) == 12
    assert lib.size(bytes(13), 3) == 12
    assert lib.size(None, 3) == -3
    for n in (4, 65535):
        with pytest.raises(ValueError, match="are needed"):
            lib.size(bytes(12), n)
    for n in (-1, 65536, 2**64 + 3):
        with pytest.raises(OverflowError):
            lib.size(bytes(12), n)


def test_strings_and_errno(lib: types.ModuleType) -> None:
    assert (lib.length("größe"), lib.length(b"raw"), lib.length(None)) == (7, 3, -1)
    assert ctypes.get_errno() == errno.EDOM
    with pytest.raises(ValueError, match="NUL"):
        lib.length("a\0b")


def test_buffers_are_changed_where_they_are(lib: types.ModuleType) -> None:
    data = bytearray(b"abc")
    assert lib.up(data, 2) == 4
    assert data == b"cde"
    lib.up(memoryview(data)[1:2], -1)
    assert data == b"cce"
    with pytest.raises(TypeError, match="read-only"):
        lib.up(b"abc", 1)


def test_outputs_are_returned(lib: types.ModuleType) -> None:
    assert lib.squares(4) == array.array("I", [0, 1, 4, 9])
    assert lib.squares(0) == array.array("I")
    pair = lib.pair(7, 2.0)
    result, pairs, flag = lib.swap(pair)
    assert (result, flag, pair.a, pair.b) == (False, True, 2, 7.0)
    assert [(one.a, one.b) for one in pairs] == [(7, 2.0), (0, 0.0)]
    assert repr(pair) == "pair(a=2, b=7.0)"
    assert lib.swap(lib.pair(b=7.5))[0] is True
    assert lib.handle(41) == 42


def test_a_struct_s_pointers_keep_what_they_point_to(lib: types.ModuleType) -> None:
    text = lib.text((ctypes.c_uint8 * 3)(1, 2, 9), 3, b"name")
    assert lib.deep(text) == 13


def test_callbacks(lib: types.ModuleType) -> None:
    seen = []

    def ask(text: str, values: array.array[int], n: int, pair: ctypes.Structure) -> tuple[int, bytes]:
        seen.append((text, list(values), n, pair.b))  # type: ignore[attr-defined]
        pair.a = 42  # type: ignore[attr-defined]
        return 5, b"xy"

    lib.set_ask(ask)
    assert lib.asks(3) == (542, b"xy\0\0\0\0\0\0")
    assert seen == [("what", [1, 2, 3], 3, 0.5)]
    with pytest.raises(ValueError, match="room for 1"):
        lib.asks(1)


def test_an_exception_in_a_callback_goes_on_in_the_call(lib: types.ModuleType) -> None:
    def nested(*_: object) -> tuple[int, bytes]:
        with pytest.raises(lib.CafeCallError):
            lib.fails(4)
        lib.handle(0)
        raise KeyError("mine")

    lib.set_ask(nested)
    with pytest.raises(KeyError, match="mine"):
        lib.asks(1)
    lib.set_ask(lambda *_: (2**31, b""))
    with pytest.raises(OverflowError, match="result"):
        lib.asks(1)
    lib.set_ask(lambda *_: (1, b""))
    assert lib.asks(1)[0] == 103


def test_a_call_that_fails_says_why(lib: types.ModuleType) -> None:
    with pytest.raises(lib.CafeCallError, match="fails: do this") as caught:
        lib.fails(10)
    assert (caught.value.status, caught.value.function) == (lib.CafeStatus.LICENCE, "fails")
    lib.handle(0)


def test_shared_buffers(lib: types.ModuleType) -> None:
    shared = lib.shared_buffer(12)
    shared[:] = bytes(array.array("i", [1, 2, 3]))
    assert lib.sum(shared) == 6
    with pytest.raises(MemoryError):
        lib.shared_buffer(2000)


def test_the_library_is_looked_for_where_asked(
    lib: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAFE_LIBRARY_DIR", str(tmp_path))
    with pytest.raises(OSError, match="libplain"):
        lib._load("plain")
    monkeypatch.setenv("CAFE_LIBRARY_DIR", os.path.dirname(str(lib.__file__)))  # noqa: PTH120 - as a shell would
    lib._load("plain")
