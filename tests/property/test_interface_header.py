"""Any header gives an interface or an InterfaceError that says where; stubs of what is accepted compile."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cafe_lib.errors import InterfaceError
from cafe_lib.interface.parse import parse_header
from cafe_lib.toolchain.stubs_public import PublicBinding, public_stub_source
from cafe_lib.toolchain.stubs_secret import secret_stub_source

LIBRARY = Path(__file__).resolve().parents[2] / "cafe_lib"
WORDS = (
    *(
        "CAFE_SECRET",
        "CAFE_CALLBACK",
        "CAFE_SERIAL",
        "CAFE_IN(n)",
        "CAFE_OUT(1)",
        "CAFE_STR(8)",
        "CAFE_OPAQUE",
        "CAFE_ON_ERROR(-1)",
        "CAFE_IN(",
    ),
    *("int", "void", "const", "char", "*", "struct s", "{", "}", "(", ")", ";", ",", "n", "f", "g", "..."),
    *("[4]", "typedef", "static", "unsigned", "double", "enum e { A };", "sizeof", "#define n 4\n", "\n"),
)
SCALARS = ("int", "unsigned char", "int64_t", "double", "bool", "enum colour", "pair_t", "struct tree")
ARRAYS = ("const uint8_t {}[n] CAFE_IN(n)", "key {} CAFE_INOUT(32)", "int {}[2][3] CAFE_OUT(2)")
POINTEES = (
    "char",
    "const void",
    "void",
    "uint16_t",
    "const pair_t",
    "struct tree",
    "int *",
    "void (*)(void)",
)
NOTES = ("CAFE_IN(n)", "CAFE_OUT(n + 1)", "CAFE_INOUT(2)", "CAFE_STR(9)", "CAFE_OPAQUE", "", "CAFE_IN(m)")
HEAD = """#include <stdbool.h>
#include <stdint.h>
#include "cafe.h"
enum colour { RED };
typedef struct { uint8_t a; long double b; } pair_t;
typedef uint8_t key[32];
struct tree { int kind; union { float x; uint64_t y; } value[3]; };
"""
scalars = st.sampled_from(SCALARS)
arrays = st.sampled_from(ARRAYS)
pointers = st.tuples(st.sampled_from(POINTEES), st.sampled_from(NOTES))


def _read(place: Path, text: str) -> bool:
    path = place / "h.h"
    path.write_text(text)
    try:
        interface = parse_header(path)
    except InterfaceError:
        return False
    offsets = tuple(range(len(interface.functions)))
    assert all(function.serial is False for function in interface.callbacks)
    binding = PublicBinding("any", bytes(32), interface.digest(), 4096, offsets)
    (place / "public.c").write_text(public_stub_source(interface, binding))
    (place / "secret.c").write_text(secret_stub_source(interface))
    includes = [f"-I{LIBRARY / name}" for name in ("include", "guest", "runtime")]
    flags = ["-fsyntax-only", "-Wall", "-Wextra", "-Werror", *includes]
    subprocess.run(["gcc", *flags, "public.c", "secret.c"], check=True, cwd=place)
    return True


@given(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_words_give_an_interface_or_a_refusal(text: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        assert _read(Path(place), f'#include "cafe.h"\n{text}') in (True, False)


def _declare(params: list[str | tuple[str, str]]) -> list[str]:
    texts = ["int n"]
    for index, param in enumerate(params):
        if param in ARRAYS:
            texts.append(str(param).format(f"p{index}"))
            continue
        kind, note = param if isinstance(param, tuple) else (param, None)
        star = "" if note is None else "*"
        texts.append(f"{kind} {star}p{index} {note or ''}")
    return texts


@given(
    st.lists(st.one_of(scalars, arrays, pointers), max_size=5),
    st.sampled_from(("void", *SCALARS)),
    st.sampled_from(
        ("CAFE_SECRET", "CAFE_SECRET CAFE_SERIAL", "CAFE_CALLBACK", "CAFE_CALLBACK CAFE_ON_ERROR(0)")
    ),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_accepted_prototypes_compile(params: list[str | tuple[str, str]], result: str, role: str) -> None:
    if result == "void":
        role = role.replace("(0)", "()")
    text = f"{HEAD}CAFE_SECRET int first(int x);\n{role} {result} f({', '.join(_declare(params))});"
    with tempfile.TemporaryDirectory() as place:
        accepted = _read(Path(place), text)
    if all(isinstance(param, str) for param in params):
        assert accepted


@given(st.lists(st.one_of(scalars, pointers), max_size=6), st.sampled_from(("CAFE_IN(1)", "CAFE_INOUT(1)")))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_accepted_structs_of_pointers_compile(params: list[str | tuple[str, str]], note: str) -> None:
    members = "; ".join(_declare(params))
    with tempfile.TemporaryDirectory() as place:
        accepted = _read(
            Path(place), f"{HEAD}struct job {{ {members}; }};\nCAFE_SECRET int f(struct job *j {note});"
        )
    if all(isinstance(param, str) for param in params):
        assert accepted
