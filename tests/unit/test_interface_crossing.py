"""Callbacks, serial functions and pointers inside a struct: what is read of them, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cafe_lib.errors import InterfaceError
from cafe_lib.interface.expression import Binary, Name, Number
from cafe_lib.interface.model import Carry, Hole, Interface, Kind
from cafe_lib.interface.parse import parse_header

INCLUDES = [part for name in ("stdint", "stddef", "stdbool", "cafe") for part in ("-include", f"{name}.h")]
Read = Callable[..., Interface]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def write_and_read(text: str, language: str = "c") -> Interface:
        path = tmp_path / ("h.hpp" if language == "c++" else "h.h")
        path.write_text(text)
        return parse_header(path, (), language, INCLUDES)

    return write_and_read


JOB = (
    "struct job { const char *name CAFE_STR(9); uint32_t n; int16_t m; bool b; uint8_t *in CAFE_IN(n * m);\n"
    "uint32_t *out CAFE_OUT(n + LEFT); void *handle CAFE_OPAQUE; float f; unsigned wide : 5; };\n"
    "enum { LEFT = 3 };\n"
)


def test_pointers_in_a_struct(read: Read) -> None:
    found = read(
        f"{JOB}CAFE_SECRET int f(int n, struct job *j CAFE_INOUT(1), const struct job *k CAFE_IN(1));"
    )
    first, second = found.functions[0].params[1:]
    assert (first.shape.size, first.shape.kind, second.const) == (48, Kind.RECORD, True)
    assert [(field.name, field.carry, field.offset, field.shape.size) for field in first.fields] == [
        ("name", Carry.STRING, 0, 1),
        ("in", Carry.IN, 16, 1),
        ("out", Carry.OUT, 24, 4),
        ("handle", Carry.OPAQUE, 32, 8),
    ]
    assert [scalar.name for scalar in first.scalars] == ["n", "m", "b", "wide"]
    assert first.scalars[1].shape.kind is Kind.SIGNED
    assert first.fields[2].count == Binary("+", Name(0, "n"), Number(3)), "the struct's n, not the function's"
    assert Hole(15, 1, 0) in first.shape.holes, "and what stands for a pointer is no hole"
    assert not [hole for hole in first.shape.holes if 16 <= hole.offset < 40]


def test_names_in_a_struct_are_those_of_its_namespace(read: Read) -> None:
    found = read(
        "namespace a { enum { N = 4 }; struct S { int *p CAFE_IN(N); }; }\n"
        "enum { N = 5 }; CAFE_SECRET int f(a::S *s CAFE_IN(1), int *q CAFE_IN(N));",
        "c++",
    )
    params = found.functions[0].params
    assert (params[0].fields[0].count, params[1].count) == (Number(4), Number(5))


def test_callbacks_are_counted_on_their_own(read: Read) -> None:
    found = read(
        "CAFE_CALLBACK CAFE_ON_ERROR(-1) int one(const char *text CAFE_STR(64));\n"
        "CAFE_SECRET int f(int x);\nCAFE_CALLBACK void two(int *p CAFE_INOUT(n), int n);"
    )
    assert [function.name for function in found.functions] == ["f"]
    assert [(one.name, one.on_error) for one in found.callbacks] == [("one", "(0l - 1)"), ("two", None)]


def test_serial_functions(read: Read) -> None:
    found = read("CAFE_SECRET CAFE_SERIAL int f(int x);\nCAFE_SECRET int g(int x);")
    assert [function.serial for function in found.functions] == [True, False]
    plain = read("CAFE_SECRET int f(int x);\nCAFE_SECRET int g(int x);")
    assert plain.digest() == found.digest(), "both sides need not agree on that"


def test_digest_changes_with_what_crosses(read: Read) -> None:
    texts = [
        "CAFE_SECRET int f(const int *p CAFE_IN(4));",
        *(
            f"{JOB}CAFE_SECRET int f({text}(1));"
            for text in ("struct job *j CAFE_IN", "struct job *j CAFE_INOUT")
        ),
        f"{JOB.replace('+ LEFT', '+ 4')}CAFE_SECRET int f(struct job *j CAFE_IN(1));",
        "CAFE_SECRET int f(const int *p CAFE_IN(4)); CAFE_CALLBACK int g(int x);",
        "CAFE_SECRET int f(const int *p CAFE_IN(4)); CAFE_CALLBACK long g(int x);",
        "CAFE_SECRET int f(const int *p CAFE_IN(4)); CAFE_SECRET int g(int x);",
    ]
    assert len({read(text).digest() for text in texts}) == len(texts)


BAD = {
    "out_of_pointers": (
        f"{JOB}CAFE_SECRET int f(struct job *j CAFE_OUT(1));",
        "j: struct job *: CAFE_OUT of a struct with annotated pointers",
        "CAFE_INOUT(1)",
    ),
    "many_with_pointers": (
        f"{JOB}CAFE_SECRET int f(struct job *j CAFE_IN(2));",
        "j: struct job *: several structs with annotated pointers",
        "one such struct",
    ),
    "array_with_pointers": (
        f"{JOB}CAFE_SECRET int f(struct job j[3] CAFE_IN(3));",
        "several structs with annotated pointers",
        "",
    ),
    "value_with_pointers": (
        f"{JOB}CAFE_SECRET int f(struct job j);",
        "j.name: const char *: pointer inside",
        "struct by pointer",
    ),
    "result_with_pointers": (f"{JOB}CAFE_SECRET struct job f(void);", "result.name: const char *", ""),
    "member_not_annotated": (
        "struct s { int *p CAFE_IN(1); int *q; };\nCAFE_SECRET int f(struct s *s CAFE_IN(1));",
        "h.h:2: f: s.q: int *: pointer inside",
        "CAFE_OPAQUE",
    ),
    "member_of_member": (
        (
            "struct s { int n; int *p CAFE_IN(n); }; struct t { int *q CAFE_IN(1); struct s in[2]; };\n"
            "CAFE_SECRET int f(struct t *t CAFE_IN(1));"
        ),
        "f: t.in[].p: int *: pointer inside",
        "",
    ),
    "pointer_behind_pointer": (
        (
            "struct s { int *p CAFE_IN(1); }; struct t { struct s *s CAFE_IN(1); };\n"
            "CAFE_SECRET int f(struct t *t CAFE_IN(1));"
        ),
        "f: t.s.p: int *: pointer inside",
        "",
    ),
    "member_pointer_pointer": (
        "struct s { int **p CAFE_IN(1); };\nCAFE_SECRET int f(struct s *s CAFE_IN(1));",
        "s.p: int **: a pointer to a pointer",
        "",
    ),
    "member_size": (
        "struct s { int *p CAFE_IN(k); int n; };\nCAFE_SECRET int f(struct s *s CAFE_IN(1), int k);",
        "s.p: int *: size (k): unknown name `k`",
        "the struct's integers (n)",
    ),
    "member_const": (
        "struct s { const int *p CAFE_OUT(1); };\nCAFE_SECRET int f(struct s *s CAFE_IN(1));",
        "s.p: const int *: const, but OUT",
        "",
    ),
    "member_scalar": (
        "struct s { int p CAFE_IN(1); };\nCAFE_SECRET int f(struct s *s CAFE_IN(1));",
        "s.p: int: annotated, but not a pointer",
        "",
    ),
    "member_function": (
        "struct s { void (*p)(void) CAFE_IN(1); };\nCAFE_SECRET int f(struct s *s CAFE_IN(1));",
        "s.p: void (*)(void): a function pointer",
        "by its name",
    ),
    "union_pointers": (
        "union s { int *p CAFE_IN(1); };\nCAFE_SECRET int f(union s *s CAFE_IN(1));",
        "a union with annotated pointers",
        "",
    ),
    "large_deep": (
        "struct s { int *p CAFE_IN(1); char c[5000]; };\nCAFE_SECRET int f(struct s *s CAFE_IN(1));",
        "of 5008 bytes, 4096 is the most",
        "behind pointers",
    ),
    "callback_deep": (
        f"{JOB}CAFE_SECRET int f(int x);\nCAFE_CALLBACK int g(struct job *j CAFE_IN(1));",
        "g: j: struct job *: a callback takes no struct with annotated pointers",
        "parameters of their own",
    ),
    "callback_result": (
        "CAFE_SECRET int f(int x);\nCAFE_CALLBACK char *g(void);",
        "h.h:2: g: result: char *: a pointer into the program",
        "CAFE_OUT",
    ),
    "callback_pointer": (
        "CAFE_SECRET int f(int x); CAFE_CALLBACK int g(int *p);",
        "g: p: int *: a pointer",
        "",
    ),
    "callback_body": (
        "CAFE_SECRET int f(int x); CAFE_CALLBACK int g(int x) { return x; }",
        "its body is in the header, so it is secret, too",
        "the public program",
    ),
    "callback_variable": (
        "CAFE_SECRET int f(int x); CAFE_CALLBACK extern int (*g)(int);",
        "only functions can be callbacks",
        "call it by its name",
    ),
    "secret_callback": ("CAFE_SECRET CAFE_CALLBACK int f(int x);", "both CAFE_SECRET and CAFE_CALLBACK", ""),
    "serial_alone": (
        "CAFE_SECRET int f(int x); CAFE_SERIAL int g(int x);",
        "CAFE_SERIAL on a function that is not secret",
        "",
    ),
    "serial_callback": (
        "CAFE_SECRET int f(int x); CAFE_CALLBACK CAFE_SERIAL int g(int x);",
        "not secret",
        "CAFE_SECRET",
    ),
}
BAD_CXX = {
    "private_member": (
        "class S { int n; public: int *p CAFE_IN(1); };\nCAFE_SECRET int f(S *s CAFE_IN(1));",
        "s.n: int: a private member beside annotated pointers",
        "public",
    ),
    "callback_method": (
        "CAFE_SECRET int f(int x); struct C { CAFE_CALLBACK int m(int x); };",
        "a member function cannot be a callback",
        "free function",
    ),
}


@pytest.mark.parametrize("name", [*BAD, *BAD_CXX])
def test_bad_header(read: Read, name: str) -> None:
    text, problem, mend = (BAD | BAD_CXX)[name]
    with pytest.raises(InterfaceError) as caught:
        read(text, "c++" if name in BAD_CXX else "c")
    assert problem in caught.value.detail
    assert mend in caught.value.detail
