"""Size expressions: any text gives a value or a typed refusal, and Python and C compute the same."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cafe_lib.interface.expression import (
    LEVELS,
    MAX_TEXT,
    ExpressionError,
    constants_of,
    evaluate,
    format_expression,
    names_in,
    parse_expression,
)
from cafe_lib.interface.model import Carry, Function, Kind, Param, Shape
from cafe_lib.toolchain.stub_text import size_text

NAMES = {"n": 0, "count": 1, "k": 2}
CONSTANTS = {"MOST": 4096, "sizeof (struct foo)": 24}
OPERATORS = [symbol for level in LEVELS for symbol in level]
VALUES = [0, 1, 2, 3, 7, 63, 64, 255, 256, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1]
INCLUDE = Path(__file__).resolve().parents[2] / "cafe_lib" / "include"

leaves = st.sampled_from([*NAMES, "MOST", "sizeof(struct  foo)", "0", "1u", "0x1F", "017", "42ULL", "1'000"])
texts = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(OPERATORS), inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        st.tuples(inner, st.sampled_from(OPERATORS), inner).map(" ".join),
        st.tuples(st.sampled_from("~!+"), inner).map("".join),
        st.tuples(inner, inner, inner).map(lambda p: f"({p[0]} ? {p[1]} : {p[2]})"),
    ),
    max_leaves=12,
)


@given(st.one_of(st.text(max_size=60), st.text("n+-*/%()<>&|^~!?: 0x9zsizeof", max_size=60)))
@example("(" * MAX_TEXT)
@example("~" * MAX_TEXT)
@example("1?" * 300)
@example("1" * 2000)
@example("n" + "+n" * 255)
@example("0x")
@example("08")
@example("1'")
def test_any_text_gives_an_expression_or_a_refusal(text: str) -> None:
    try:
        expression = parse_expression(text, NAMES, dict.fromkeys(constants_of(text, NAMES), 5))
        value = evaluate(expression, [1, 2, 3])
    except ExpressionError:
        value = 0
    assert 0 <= value < 2**64


@given(texts, st.lists(st.sampled_from(VALUES), min_size=3, max_size=3))
def test_canonical_text_means_the_same(text: str, values: list[int]) -> None:
    expression = parse_expression(text, NAMES, CONSTANTS)
    again = parse_expression(format_expression(expression), NAMES, {})
    assert again == expression
    assert names_in(again) <= {0, 1, 2}
    assert _outcome(text, values) == _outcome(format_expression(expression), values)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10 - 4 - 3", 3),
        ("7 / 2 * 2", 6),
        ("1 << 4 | 1", 17),
        ("(n + 15) & ~15", 16),
        ("n > 3 ? n : 3", 3),
        ("k ? 1 : 2", 2),
        ("1 == 1 && 2 > 3 || 1", 1),
        ("0 ? 1 / k : 9", 9),
        ("k && 1 / k", 0),
        ("010 + 0b11 + 0x10", 27),
    ],
)
def test_precedence_and_laziness_are_those_of_c(text: str, value: int) -> None:
    assert evaluate(parse_expression(text, NAMES, CONSTANTS), [1, 2, 0]) == value


@pytest.mark.parametrize(
    "text",
    [
        "n - 2",
        "1 / k",
        "1 % k",
        "count << 64",
        "1 >> 64",
        "~0 + 1",
        "~0 * 2",
        "~0 << 1",
        "k - 1 + 1",
        "k - n",
    ],
)
@pytest.mark.case("B06")
def test_wrapping_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        evaluate(parse_expression(text, NAMES, CONSTANTS), [1, 2, 0])


@pytest.mark.case("B06")
def test_c_computes_the_same(tmp_path: Path) -> None:
    """Random expressions over random values, signed and unsigned: equal results, equal refusals."""
    source = random.Random(7)  # noqa: S311 - test data
    cases = [(_random_text(source, 4), [source.choice(VALUES) for _ in NAMES]) for _ in range(600)]
    for signed in (False, True):
        program = _compile(tmp_path, [text for text, _ in cases], signed=signed)
        lines = "\n".join(" ".join(str(value) for value in values) for _, values in cases)
        run = subprocess.run([program], input=lines, check=True, capture_output=True, text=True)
        wanted = [_outcome(text, [_as(value, signed=signed) for value in values]) for text, values in cases]
        assert run.stdout.splitlines() == wanted
        assert 100 < wanted.count("bad") < 580, "both outcomes are well represented"


def _as(value: int, *, signed: bool) -> int:
    return value - 2**64 if signed and value >= 2**63 else value


def _outcome(text: str, values: list[int]) -> str:
    try:
        return str(evaluate(parse_expression(text, NAMES, CONSTANTS), values))
    except ExpressionError:
        return "bad"


def _random_text(source: random.Random, depth: int) -> str:
    if depth == 0 or source.random() < 0.2:
        return source.choice([*NAMES, "MOST", "3", "1", "64", "0"])
    parts = [_random_text(source, depth - 1) for _ in range(3)]
    if source.random() < 0.1:
        return f"({parts[0]} ? {parts[1]} : {parts[2]})"
    if source.random() < 0.1:
        return f"{source.choice('~!')}({parts[0]})"
    return f"({parts[0]} {source.choice(OPERATORS)} {parts[1]})"


def _compile(place: Path, texts: list[str], *, signed: bool) -> Path:
    kind = Kind.SIGNED if signed else Kind.UNSIGNED
    shape = Shape("t", kind, 8, 8, "x8")
    params = tuple(Param(name, "t", Carry.VALUE, shape) for name in NAMES)
    function = Function("f", (), "f", params, None, None, noexcept=False, place="")
    lines = ["#include <inttypes.h>", "#include <stdio.h>", '#include "cafe_size.h"']
    lines += [f"typedef {'int64_t' if signed else 'uint64_t'} t;"]
    for index, text in enumerate(texts):
        value = size_text(parse_expression(text, NAMES, CONSTANTS), list(NAMES), function.params)
        lines.append(
            f"static void f{index}(t n, t count, t k) {{ (void)n; (void)count; (void)k; bool bad = false;"
        )
        lines.append(
            f'const uint64_t v = {value}; if (bad) puts("bad"); else printf("%" PRIu64 "\\n", v); }}'
        )
    reader = 'static t read_one(void) { uint64_t v; if (scanf("%" SCNu64, &v) != 1) return 0; return (t)v; }'
    calls = "".join(
        f"a = read_one(); b = read_one(); c = read_one(); f{index}(a, b, c);" for index in range(len(texts))
    )
    lines += [reader, f"int main(void) {{ t a, b, c; {calls} return 0; }}"]
    source, program = place / "sizes.c", place / f"sizes{signed}"
    source.write_text("\n".join(lines))
    flags = ["-O1", "-w", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["gcc", *flags, f"-I{INCLUDE}", source, "-o", program], check=True)
    return program
