"""Random interfaces: what a caller gets through both stubs is what a direct call gives, byte for byte.

The same body is compiled twice, once as the secret function and once as a reference in the caller, so that
any difference between the two stubs' layouts shows. Some functions take all they are given in a struct of
pointers; some only pass it on to a callback, where the reference's body stands.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cafe_lib.interface.parse import parse_header

if TYPE_CHECKING:
    from tests.guests.library.conftest import Shop

FUNCTIONS = 20
COUNTERS = ("uint8_t", "uint16_t", "int16_t", "uint32_t", "int32_t", "int64_t", "size_t", "enum amount")
OTHERS = ("char", "float", "double", "long double", "bool", "agree_pair", "agree_odd", "union agree_either")
ELEMENTS = (*COUNTERS, *OTHERS)
RESULTS = (*ELEMENTS, "agree_large", "agree_large")
SIZES = (
    "{n}",
    "{n} + 1",
    "2 * {n}",
    "({n} + 3) / 4",
    "{n} > 2 ? {n} : 2",
    "AGREE_FIXED",
    "sizeof(agree_odd) / 5",
)
TYPES = """
#include "cafe.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#define AGREE_FIXED (2 + 3)
enum amount { NONE, FEW = 3, MORE = 127 };
typedef struct { uint8_t a; uint32_t b; uint16_t c[3]; } agree_pair;
typedef struct { uint8_t a[5]; struct { double x; char y; } in[2]; unsigned f : 5, g : 9; } agree_odd;
union agree_either { uint64_t a; uint8_t b[8]; };
typedef struct { uint32_t words[20]; } agree_large;
"""
TOOLS = """
#include "agree.h"
#include <string.h>
static inline uint64_t mix_bytes(uint64_t h, const void *p, size_t n) {
    for (size_t i = 0; i < n; i++) { h = (h ^ ((const uint8_t *)p)[i]) * 1099511628211ull; }
    return h;
}
#define PLAIN(T, N) \\
    static inline uint64_t mix_##N(uint64_t h, const T *p) { return mix_bytes(h, p, sizeof *p); } \\
    static inline void fill_##N(T *p, uint64_t h) { *p = (T)(h % 100); }
"""
RECORDS = """
static inline uint64_t mix_long_double(uint64_t h, const long double *p) { return mix_bytes(h, p, 10); }
static inline void fill_long_double(long double *p, uint64_t h) {
    memset(p, 0xee, sizeof *p);
    *p = (long double)(h % 1000) / 7;
}
static inline uint64_t mix_bool(uint64_t h, const bool *p) { return mix_bytes(h, p, 1); }
static inline void fill_bool(bool *p, uint64_t h) { *p = h % 2 != 0; }
static inline uint64_t mix_agree_pair(uint64_t h, const agree_pair *p) {
    return mix_bytes(mix_bytes(mix_bytes(h, &p->a, 1), &p->b, 4), p->c, 6);
}
static inline void fill_agree_pair(agree_pair *p, uint64_t h) {
    memset(p, 0xee, sizeof *p);
    p->a = (uint8_t)h; p->b = (uint32_t)(h >> 8); p->c[0] = p->c[1] = p->c[2] = (uint16_t)(h >> 16);
}
static inline uint64_t mix_agree_odd(uint64_t h, const agree_odd *p) {
    h = mix_bytes(h, p->a, 5);
    for (int i = 0; i < 2; i++) { h = mix_bytes(mix_bytes(h, &p->in[i].x, 8), &p->in[i].y, 1); }
    return (h * 31 + p->f) * 31 + p->g;
}
static inline void fill_agree_odd(agree_odd *p, uint64_t h) {
    memset(p, 0xee, sizeof *p);
    memset(p->a, (int)(h & 127), 5);
    for (int i = 0; i < 2; i++) { p->in[i].x = (double)(h % 999); p->in[i].y = (char)(h % 99); }
    p->f = h % 32; p->g = h % 512;
}
static inline uint64_t mix_union_agree_either(uint64_t h, const union agree_either *p) {
    return mix_bytes(h, p, 8);
}
static inline void fill_union_agree_either(union agree_either *p, uint64_t h) { p->a = h; }
static inline uint64_t mix_agree_large(uint64_t h, const agree_large *p) {
    return mix_bytes(h, p, sizeof *p);
}
static inline void fill_agree_large(agree_large *p, uint64_t h) {
    for (int i = 0; i < 20; i++) { p->words[i] = (uint32_t)(h >> (i % 30)); }
}
"""
MAIN = """
#include "tools.h"
#include <stdio.h>
#include <stdlib.h>
static uint64_t state = 88172645463325252ull;
static uint64_t next(void) {
    state ^= state << 13; state ^= state >> 7; state ^= state << 17;
    return state >> 3;
}
static void need(int good, const char *what, int trial) {
    if (!good) { printf("%s differs in trial %d: %s\\n", what, trial, cafe_error_message()); exit(1); }
}
"""


@dataclass(frozen=True)
class Pointer:
    name: str
    type: str
    note: str
    size: str


@dataclass(frozen=True)
class Shape:
    """A random function. ``deep`` is how it takes a struct with everything in it: IN, INOUT or not at all."""

    index: int
    result: str
    scalars: tuple[tuple[str, str], ...]
    pointers: tuple[Pointer, ...]
    order: tuple[str, ...]
    deep: str
    asks: bool

    @property
    def struct(self) -> str:
        texts = self.members(annotated=True)
        return f"struct deep_{self.index} {{ {' '.join(f'{texts[label]};' for label in self.order)} }};"

    def members(self, *, annotated: bool) -> dict[str, str]:
        texts = {label: f"{kind} {label}" for label, kind in self.scalars}
        for pointer in self.pointers:
            const = "const " if pointer.note == "IN" else ""
            note = f" CAFE_{pointer.note}({pointer.size})" if annotated else ""
            texts[pointer.name] = f"{const}{pointer.type} *{pointer.name}{note}"
        return texts

    def declare(self, name: str, *, annotated: bool) -> str:
        texts = self.members(annotated=annotated)
        listed = ", ".join(texts[label] for label in self.order) or "void"
        if self.deep:
            const = "const " if self.deep == "IN" else ""
            listed = f"{const}struct deep_{self.index} *d{f' CAFE_{self.deep}(1)' if annotated else ''}"
        return f"{self.result} {name}_{self.index}({listed})"

    def secret(self) -> str:
        if self.asks:
            return f"return cb_{self.index}({', '.join(self.order)});"
        return self.body()

    def unpack(self) -> str:
        """Give the members of the struct the names of parameters."""
        texts = self.members(annotated=False)
        return " ".join(f"{texts[label]} = d->{label};" for label in self.order) if self.deep else ""

    def body(self) -> str:
        lines = [self.unpack(), "uint64_t h = 1469598103934665603ull;"]
        lines += [f"h = mix_{tag(kind)}(h, &{label});" for label, kind in self.scalars]
        for pointer in self.pointers:
            lines.append(f"h = h * 3 + ({pointer.name} != NULL);")
            lines.append(self.each(pointer, f"h = mix_{tag(pointer.type)}(h, &{pointer.name}[i]);"))
        for pointer in self.pointers:
            if pointer.note != "IN":
                lines.append(self.each(pointer, f"fill_{tag(pointer.type)}(&{pointer.name}[i], h + i);"))
        if self.deep == "INOUT":
            lines += [f"fill_{tag(kind)}(&d->{label}, h ^ 77);" for label, kind in self.scalars]
        return " ".join([*lines, f"{self.result} r; fill_{tag(self.result)}(&r, h); return r;"])

    def each(self, pointer: Pointer, text: str) -> str:
        within = f"{pointer.name} != NULL && i < (uint64_t)({pointer.size})"
        return f"for (uint64_t i = 0; {within}; i++) {{ {text} }}"

    def calls(self, index: int) -> list[str]:
        """Call both; of a struct, its own members must agree and its pointers be as they were."""
        lines = []
        for copy, function in (("x", "fn"), ("y", "ref")):
            names = {p.name: f"null_{p.name} ? NULL : {copy}_{p.name}" for p in self.pointers}
            arguments = ", ".join(names.get(label, label) for label in self.order)
            if self.deep:
                lines.append(f"struct deep_{index} {copy}_d = {{{arguments}}};")
                arguments = f"&{copy}_d"
            lines.append(f"{self.result} {copy}_r = {function}_{index}({arguments});")
            kept = " && ".join(f"{copy}_d.{p.name} == ({names[p.name]})" for p in self.pointers)
            if self.deep and kept:
                lines.append(f'need({kept}, "pointers of {index}", t);')
        if self.deep:
            for label, kind in self.scalars:
                same = f"mix_{tag(kind)}(1, &x_d.{label}) == mix_{tag(kind)}(1, &y_d.{label})"
                lines.append(f'need({same}, "{label} of {index}", t);')
        return lines

    def trial(self, index: int) -> str:
        lines = []
        for label, kind in self.scalars:
            lines.append(f"{kind} {label}; fill_{tag(kind)}(&{label}, next());")
        for p in self.pointers:
            lines.append(f"const uint64_t n_{p.name} = (uint64_t)({p.size});")
            for copy in ("x", "y"):
                start = f"{p.type} *{copy}_{p.name} = ({p.type} *)calloc(n_{p.name} + 1, sizeof({p.type}));"
                lines.append(start)
            if p.note != "OUT":
                fill = f"fill_{tag(p.type)}(&x_{p.name}[i], next());"
                lines.append(f"for (uint64_t i = 0; i < n_{p.name}; i++) {{ {fill} }}")
            lines.append(f"memcpy(y_{p.name}, x_{p.name}, n_{p.name} * sizeof({p.type}));")
            lines.append(f"const int null_{p.name} = next() % 5 == 0;")
        lines += self.calls(index)
        lines.append(f'need(cafe_last_error() == 0, "error of {index}", t);')
        same = f"mix_{tag(self.result)}(1, &x_r) == mix_{tag(self.result)}(1, &y_r)"
        lines.append(f'need({same}, "result of {index}", t);')
        for p in self.pointers:
            same = f"mix_{tag(p.type)}(1, &x_{p.name}[i]) == mix_{tag(p.type)}(1, &y_{p.name}[i])"
            check = f'need({same}, "{p.name} of {index}", t);'
            lines.append(f"for (uint64_t i = 0; i < n_{p.name}; i++) {{ {check} }}")
            lines.append(f"free(x_{p.name}); free(y_{p.name});")
        return "\n    ".join(lines)


def tag(kind: str) -> str:
    return kind.replace(" ", "_")


def random_shape(index: int, source: random.Random) -> Shape:
    scalars = tuple(
        (f"s{i}", source.choice(COUNTERS if i == 0 else ELEMENTS)) for i in range(source.randrange(1, 6))
    )
    counters = [label for label, kind in scalars if kind in COUNTERS]
    pointers = tuple(
        Pointer(
            f"p{i}",
            source.choice(ELEMENTS),
            source.choice(("IN", "OUT", "INOUT")),
            source.choice(SIZES).format(n=source.choice(counters)),
        )
        for i in range(source.randrange(0, 5))
    )
    order = [label for label, _ in scalars] + [pointer.name for pointer in pointers]
    source.shuffle(order)
    deep = source.choice(("", "", "IN", "INOUT"))
    asks = not deep and source.randrange(2) == 0
    return Shape(index, source.choice(RESULTS), scalars, pointers, tuple(order), deep, asks)


def write(place: Path, shapes: list[Shape]) -> None:
    heads = [shape.struct for shape in shapes if shape.deep]
    heads += [f"CAFE_CALLBACK {shape.declare('cb', annotated=True)};" for shape in shapes if shape.asks]
    heads += [f"CAFE_SECRET {shape.declare('fn', annotated=True)};" for shape in shapes]
    opening, closing = ("#ifdef __cplusplus", 'extern "C" {', "#endif"), ("#ifdef __cplusplus", "}", "#endif")
    pieces = ["#ifndef AGREE_H", "#define AGREE_H", TYPES, *opening, *heads, *closing, "#endif\n"]
    (place / "agree.h").write_text("\n".join(pieces))
    plain = [f"PLAIN({kind}, {tag(kind)})" for kind in ELEMENTS if kind not in OTHERS[3:]]
    (place / "tools.h").write_text("\n".join([TOOLS, *plain, RECORDS]))
    secret = [f"{shape.declare('fn', annotated=False)} {{ {shape.secret()} }}" for shape in shapes]
    (place / "secret.c").write_text("\n".join(['#include "tools.h"', *secret]))
    bodies = [f"static {shape.declare('ref', annotated=False)} {{ {shape.body()} }}" for shape in shapes]
    bodies += [f"{s.declare('cb', annotated=False)} {{ {s.body()} }}" for s in shapes if s.asks]
    trials = [f"static void try_{i}(int t) {{\n    {s.trial(i)}\n}}" for i, s in enumerate(shapes)]
    calls = " ".join(f"try_{i}(t);" for i in range(len(shapes)))
    main = f'int main(void) {{ for (int t = 0; t < 40; t++) {{ {calls} }} puts("all agree"); return 0; }}\n'
    (place / "main.c").write_text("\n".join([MAIN, *bodies, *trials, main]))


@pytest.mark.parametrize(("seed", "language"), [(1, "c"), (3, "c++")])
@pytest.mark.case("B04", "B09", "B10")
def test_random_interfaces(tmp_path: Path, shop_in: Callable[[Path], Shop], seed: int, language: str) -> None:
    source = random.Random(seed)  # noqa: S311 - test data
    write(tmp_path, [random_shape(index, source) for index in range(FUNCTIONS)])
    shop = shop_in(tmp_path)
    interface = parse_header(tmp_path / "agree.h", (), language)
    assert interface.callbacks
    plus = ("-xc++",) if language == "c++" else ()
    relaxed = ("-Wno-conversion", "-Wno-sign-compare", "-Wno-type-limits", *plus)
    secret = [shop.compile(tmp_path / "secret.c", "secret", *relaxed)]
    main = [shop.compile(tmp_path / "main.c", "main", *relaxed)]
    program = shop.loopback(interface, secret, main)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "all agree\n"), done.stderr
