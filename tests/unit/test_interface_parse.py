"""Annotated headers: what is read, and that every problem is named with its place, path and mend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cafe_lib.errors import InterfaceError
from cafe_lib.interface.layout import fixed_part
from cafe_lib.interface.model import Carry, Hole, Interface, Kind
from cafe_lib.interface.parse import parse_header, parse_headers

INCLUDES = [part for name in ("stdint", "stddef", "stdbool", "cafe") for part in ("-include", f"{name}.h")]
Read = Callable[..., Interface]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def write_and_read(text: str, language: str = "c") -> Interface:
        path = tmp_path / ("h.hpp" if language == "c++" else "h.h")
        path.write_text(text)
        return parse_header(path, (), language, INCLUDES)

    return write_and_read


def test_issue_example(read: Read) -> None:
    found = read(
        "CAFE_SECRET int check(const char *uri CAFE_IN(len), size_t len, uint32_t *reason CAFE_OUT(1));\n"
        "int not_secret(char *p);"
    )
    (function,) = found.functions
    assert (function.name, function.symbol, function.on_error, function.place) == (
        "check",
        "check",
        None,
        "h.h:1",
    )
    assert [param.carry for param in function.params] == [Carry.IN, Carry.VALUE, Carry.OUT]
    assert [param.shape.size for param in function.params] == [1, 8, 4]
    assert fixed_part(function).offsets == (0, 8, 16)
    assert found.headers == ("h.h",)


def test_annotation_before_and_after_the_name(read: Read) -> None:
    after = read("CAFE_SECRET int f(const int *p CAFE_IN(n), int n) CAFE_ON_ERROR(-1);")
    before = read("int f(CAFE_IN(n) const int *p, int n) CAFE_SECRET CAFE_ON_ERROR(-1);")
    assert before.digest() == after.digest()
    assert before.functions[0].on_error == after.functions[0].on_error == "(0l - 1)"


def test_cxx_overloads_in_namespaces(read: Read) -> None:
    found = read(
        "namespace a { inline namespace b { struct P { int x; };\n"
        "CAFE_SECRET int f(const P *p CAFE_IN(sizeof(P))) noexcept; CAFE_SECRET int f(int x); } }",
        "c++",
    )
    assert [function.display for function in found.functions] == ["a::b::f", "a::b::f"]
    assert [function.symbol for function in found.functions] == ["_ZN1a1b1fEPKNS0_1PE", "_ZN1a1b1fEi"]
    assert [function.noexcept for function in found.functions] == [True, False]


def test_c_and_cxx_agree_on_a_shared_header(read: Read) -> None:
    text = (
        '#ifdef __cplusplus\nextern "C" {\n#endif\ntypedef struct { uint8_t a; long double b; } t;\n'
        "CAFE_SECRET bool f(t v, bool x, const t *p CAFE_IN(2));\n#ifdef __cplusplus\n}\n#endif\n"
    )
    assert read(text).digest() == read(text, "c++").digest()


def test_padding_is_found(read: Read) -> None:
    found = read(
        "struct s { char a; int b; unsigned c : 3; union { char d; short e; } u; long double f; };\n"
        "CAFE_SECRET struct s f(void);"
    )
    result = found.functions[0].result
    assert result is not None
    assert result.holes == (Hole(1, 3, 0), Hole(8, 1, 7), Hole(9, 1, 0), Hole(12, 4, 0), Hole(26, 6, 0))


@pytest.mark.parametrize(
    ("result", "value", "text"),
    [
        ("int", "-1", "(0l - 1)"),
        ("int", "E_BAD", "5ul"),
        ("int64_t", "INT64_MIN", "(-9223372036854775807l - 1)"),
        ("uint64_t", "UINT64_MAX", "18446744073709551615ul"),
        ("bool", "false", "0ul"),
        ("double", "NAN", '__builtin_nan("")'),
        ("float", "-2.5e3f", "-2500.0"),
        ("double", "7", "7.0"),
        ("enum e", "E_BAD", "5ul"),
        ("void", "", ""),
        ("struct s", "{0}", ""),
    ],
)
def test_error_values(read: Read, result: str, value: str, text: str) -> None:
    head = "enum e { E_BAD = 5 }; struct s { int x; };\n"
    found = read(f"{head}CAFE_SECRET CAFE_ON_ERROR({value}) {result} f(void);")
    assert found.functions[0].on_error == text


def test_size_expressions_use_macros_enums_and_sizeof(read: Read) -> None:
    found = read(
        "#define ROWS (2 * COLUMNS)\n#define COLUMNS 3u\nenum { EXTRA = 4 };\nstruct s { int x[5]; };\n"
        "CAFE_SECRET int f(const int *p CAFE_IN(ROWS * n + EXTRA - sizeof(struct s) / 4), int16_t n);"
    )
    count = found.functions[0].params[0].count
    assert str(count).count("Number") == 5
    assert found.functions[0].params[1].shape.kind is Kind.SIGNED


def test_declared_twice_alike(read: Read) -> None:
    text = "CAFE_SECRET int f(int *p CAFE_IN(1));\nCAFE_SECRET int f(int *p CAFE_IN(1));\nint f(int *q);"
    assert [function.name for function in read(text).functions] == ["f"]


def test_vector_types_of_gcc_headers(read: Read) -> None:
    found = read("#include <immintrin.h>\nCAFE_SECRET int f(__m128i v, const __m128 *p CAFE_IN(2));")
    assert [param.shape.size for param in found.functions[0].params] == [16, 16]


def test_arrays_and_typedefs_that_hide_pointers(read: Read) -> None:
    found = read(
        "typedef const char *text; typedef uint8_t key[32]; typedef struct o *handle;\n"
        "CAFE_SECRET int f(size_t n, const uint8_t p[n] CAFE_IN(n), text t CAFE_STR(9),\n"
        "    const key k CAFE_IN(32), key *ks CAFE_INOUT(2), int v[static 4] CAFE_OUT(4),\n"
        "    int m[2][3] CAFE_INOUT(2), handle h CAFE_OPAQUE);"
    )
    params = found.functions[0].params
    assert [param.shape.size for param in params] == [8, 1, 1, 1, 32, 4, 12, 8]
    assert [param.spelling for param in params[1:]] == [
        *("const uint8_t *", "const char *", "const unsigned char *", "key *", "int *"),
        *("__typeof__(int[3]) *", "struct o *"),
    ]


def test_several_headers_make_one_interface(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.h").write_text(f'#include "cafe.h"\nCAFE_SECRET int {name}(int x);\n')
    found = parse_headers([tmp_path / "one.h", tmp_path / "two.h"])
    assert [function.name for function in found.functions] == ["one", "two"]


def test_digest_changes_with_what_crosses(read: Read) -> None:
    texts = [
        "CAFE_SECRET int f(const int *p CAFE_IN(4));",
        "CAFE_SECRET int f(const int *p CAFE_IN(5));",
        "CAFE_SECRET int f(const unsigned *p CAFE_IN(4));",
        "CAFE_SECRET int f(int *p CAFE_INOUT(4));",
        "CAFE_SECRET int g(const int *p CAFE_IN(4));",
        "CAFE_SECRET long f(const int *p CAFE_IN(4));",
        "struct s { int a; short b, c; }; CAFE_SECRET int f(struct s x);",
        "struct s { int a; short c, b; }; CAFE_SECRET int f(struct s x);",
        "struct s { short b, c; int a; }; CAFE_SECRET int f(struct s x);",
    ]
    assert len({read(text).digest() for text in texts}) == len(texts)


DEEP = (
    "struct deep { int x; struct { struct { const char *p; } q[2]; } z; };\n"
    "CAFE_SECRET int f(struct deep *p CAFE_IN(1));"
)
BAD = {
    "unannotated": ("CAFE_SECRET int f(int *p);", "h.h:1: f: p: int *: a pointer without", "CAFE_INOUT(n)"),
    "twice": ("CAFE_SECRET int f(const int *p CAFE_IN(1) CAFE_OPAQUE);", "more than one annotation", ""),
    "nested": (DEEP, "h.h:2: f: p.z.q[].p: const char *: pointer inside", "a parameter of its own"),
    "anonymous": (
        "struct s { union { int a; void *b; }; };\nCAFE_SECRET int f(struct s *p CAFE_IN(1));",
        "f: p.b: void *: pointer inside",
        "",
    ),
    "pointer_pointer": (
        "CAFE_SECRET int f(int **p CAFE_IN(2));",
        "p: int **: a pointer to a pointer",
        "flat buffer",
    ),
    "by_value": ("struct s { int *p; }; CAFE_SECRET int f(struct s v);", "f: v.p: int *: pointer inside", ""),
    "variadic": ("CAFE_SECRET int f(int n, ...);", "f: ...: variadic", "fixed number"),
    "no_prototype": ("CAFE_SECRET int f();", "no prototype", "(void)"),
    "const_out": (
        "CAFE_SECRET int f(const int *p CAFE_OUT(1));",
        "p: const int *: const, but OUT",
        "remove const",
    ),
    "unknown_name": ("CAFE_SECRET int f(int *p CAFE_IN(lne), int len);", "unknown name `lne`", "(len)"),
    "pointer_in_size": ("CAFE_SECRET int f(int *p CAFE_IN(p));", "unknown name `p`", "there are none"),
    "float_in_size": ("CAFE_SECRET int f(int *p CAFE_IN(x), float x);", "unknown name `x`", ""),
    "unknown_sizeof": (
        "CAFE_SECRET int f(int *p CAFE_IN(sizeof(struct t)));",
        "unknown name `sizeof (struct t)`",
        "",
    ),
    "bad_sizeof": ("CAFE_SECRET int f(int *p CAFE_IN(sizeof p));", "sizeof wants a type", ""),
    "cast": ("CAFE_SECRET int f(int *p CAFE_IN((int)n), int n);", "size ((int)n)", ""),
    "negative": ("CAFE_SECRET int f(int *p CAFE_IN(-1));", "cannot be negative", ""),
    "empty": ("CAFE_SECRET int f(int *p CAFE_IN());", "ends too early", ""),
    "comma": ("CAFE_SECRET int f(int *p CAFE_IN(1, 2));", "`,` has no place", ""),
    "call": ("CAFE_SECRET int f(int *p CAFE_IN(n()), int n);", "unexpected `(`", ""),
    "text": ('CAFE_SECRET int f(int *p CAFE_IN("x"));', "has no place", ""),
    "too_long": (f"CAFE_SECRET int f(int *p CAFE_IN(1{'+1' * 600}));", "longer than", ""),
    "too_deep": (f"CAFE_SECRET int f(int *p CAFE_IN({'(' * 50}1{')' * 50}));", "deeper than", ""),
    "huge_number": ("CAFE_SECRET int f(int *p CAFE_IN(18446744073709551616));", "over 64 bits", ""),
    "callback": (
        "CAFE_SECRET int f(void (*g)(int) CAFE_CALLBACK);",
        "g: void (*)(int): a function pointer",
        "call it by its name",
    ),
    "callback_typedef": (
        "typedef int (*t)(int); CAFE_SECRET int f(t g);",
        "g: t: a function pointer",
        "by its name",
    ),
    "function_in_struct": (
        "struct s { void (*g)(int); };\nCAFE_SECRET int f(struct s *p CAFE_IN(1));",
        "p.g: void (*)(int): function pointer",
        "call it by its name",
    ),
    "pointer_result": ("CAFE_SECRET char *f(void);", "result: char *: a pointer", "CAFE_OUT"),
    "string_mutable": (
        "CAFE_SECRET int f(char *p CAFE_STR(9));",
        "CAFE_STR wants const char *",
        "CAFE_INOUT",
    ),
    "not_a_pointer": ("CAFE_SECRET int f(int n CAFE_IN(1));", "annotated, but not a pointer", ""),
    "unknown_note": (
        'CAFE_SECRET int f(int *p __attribute__((annotate("cafe:magic:1"))));',
        "unknown annotation magic",
        "",
    ),
    "incomplete": ("struct s; CAFE_SECRET int f(struct s *p CAFE_IN(1));", "incomplete type", "define it"),
    "flexible": (
        "struct s { int n; char d[]; };\nCAFE_SECRET int f(struct s *p CAFE_IN(1));",
        "p.d: char[]",
        "",
    ),
    "atomic": ("CAFE_SECRET int f(_Atomic(int) *p CAFE_IN(1));", "a type that cannot be copied", ""),
    "aligned": (
        "struct s { _Alignas(64) int x; };\nCAFE_SECRET int f(struct s *p CAFE_IN(1));",
        "aligned to 64, 16 is the most",
        "",
    ),
    "unnamed_type": (
        "CAFE_SECRET int f(struct { int x; } v);",
        "a type without a name",
        "give the type a name",
    ),
    "large_type": (
        "struct s { char x[1<<21]; };\nCAFE_SECRET int f(struct s *p CAFE_IN(1));",
        "over 1048576",
        "",
    ),
    "large_frame": (
        "struct s { char x[3000]; };\nCAFE_SECRET int f(struct s v);",
        "2048 is the most",
        "CAFE_IN(1)",
    ),
    "many_params": (
        f"CAFE_SECRET int f({', '.join('char' for _ in range(65))});",
        "65 parameters, 64 is the most",
        "struct",
    ),
    "static": ("CAFE_SECRET static int f(int x);", "no external linkage", "static"),
    "body": ("CAFE_SECRET int f(int x) { return x; }", "its body is in the header", "secret source"),
    "variable": ("CAFE_SECRET extern int x;", "only functions can be secret", ""),
    "error_range": (
        "CAFE_SECRET CAFE_ON_ERROR(300) unsigned char f(void);",
        "CAFE_ON_ERROR(300)",
        "one integer",
    ),
    "error_text": ('CAFE_SECRET CAFE_ON_ERROR("x") int f(void);', "is not one constant", ""),
    "error_call": ("int g(void); CAFE_SECRET CAFE_ON_ERROR(g()) int f(void);", "is not one constant", ""),
    "error_twice": ("CAFE_SECRET CAFE_ON_ERROR(1) CAFE_ON_ERROR(2) int f(void);", "is not one constant", ""),
    "error_struct": (
        "struct s { int x; }; CAFE_SECRET CAFE_ON_ERROR(1) struct s f(void);",
        "is not one",
        "{0}",
    ),
    "redeclared": (
        "CAFE_SECRET int f(int *p CAFE_IN(1));\nCAFE_SECRET int f(int *p CAFE_IN(2));",
        "h.h:2: f: declared before, at h.h:1, and differently",
        "one declaration",
    ),
    "syntax": ("CAFE_SECRET int f(;", "h.h:1: ", ""),
    "nothing": ("int f(void);", "no function is annotated", ""),
}
BAD_CXX = {
    "reference": ("CAFE_SECRET int f(const int &x);", "x: const int &: a reference", "CAFE_IN(1)"),
    "moved": ("CAFE_SECRET int f(int &&x);", "a reference", ""),
    "virtual": (
        "struct V { virtual int g(); int x; };\nCAFE_SECRET int f(V *p CAFE_IN(1));",
        "p: V: not triv",
        "plain",
    ),
    "string": (
        "#include <string>\nCAFE_SECRET int f(std::string s);",
        "not trivially copyable",
        "data and size",
    ),
    "copy": (
        "struct C { C(const C &); int x; };\nCAFE_SECRET int f(const C *p CAFE_IN(1));",
        "not trivially",
        "",
    ),
    "base": ("struct A { int x; }; struct B : A { };\nCAFE_SECRET int f(B v);", "v: B: has a base class", ""),
    "method": (
        "struct C { CAFE_SECRET int m(int x); };",
        "a member function cannot be secret",
        "free function",
    ),
    "template": ("template <class T> CAFE_SECRET int f(T x);", "a template cannot be secret", "each type"),
    "unnamed_namespace": ("namespace { CAFE_SECRET int f(int x); }", "no external linkage", "namespace"),
    "member_pointer": ("struct S { int x; }; CAFE_SECRET int f(int S::*p);", "pointer inside", ""),
    "nullptr": ("CAFE_SECRET int f(decltype(nullptr) p);", "pointer inside", ""),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_c_header(read: Read, name: str) -> None:
    text, problem, mend = BAD[name]
    with pytest.raises(InterfaceError) as caught:
        read(text)
    assert problem in caught.value.detail
    assert mend in caught.value.detail


@pytest.mark.parametrize("name", BAD_CXX)
def test_bad_cxx_header(read: Read, name: str) -> None:
    text, problem, mend = BAD_CXX[name]
    with pytest.raises(InterfaceError) as caught:
        read(text, "c++")
    assert problem in caught.value.detail
    assert mend in caught.value.detail


def test_every_problem_is_listed(read: Read) -> None:
    with pytest.raises(InterfaceError) as caught:
        read("CAFE_SECRET int f(int *p, int **q CAFE_IN(1), ...);\nCAFE_SECRET char *g(int *r CAFE_OUT(n));")
    assert [part in caught.value.detail for part in ("f: p:", "f: q:", "f: ...:", "g: r:", "g: result:")] == [
        True
    ] * 5


@pytest.mark.parametrize(
    "data", [b"\0\1\2", b"\xff" * 100, b"#include", b'#include "h.h"', b"}" * 9], ids=range(5)
)
def test_bytes_that_are_no_header(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "h.h"
    path.write_bytes(data)
    with pytest.raises(InterfaceError):
        parse_header(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InterfaceError, match=r"absent\.h"):
        parse_header(tmp_path / "absent.h")
    with pytest.raises(InterfaceError, match="not a file"):
        parse_header(tmp_path)
    large = tmp_path / "large.h"
    large.write_bytes(b"\n" * ((4 << 20) + 1))
    with pytest.raises(InterfaceError, match="not a file of at most"):
        parse_header(large)
    with pytest.raises(InterfaceError, match="language"):
        parse_header(large, language="rust")
