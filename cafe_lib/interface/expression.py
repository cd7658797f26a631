"""Size expressions: a bounded subset of C's integer expressions, with exact unsigned 64-bit arithmetic.

A value that is negative, wraps or divides by zero makes the whole expression refused. `cafe_size.h` does the
same in C.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

MAX_TEXT = 1024
MAX_DEPTH = 32
MAX_NODES = 256
WORD = 2**64

TOKEN = re.compile(
    r"\s*(?:(?P<number>[0-9][0-9A-Za-z']*)|(?P<name>[A-Za-z_]\w*(?:\s*::\s*[A-Za-z_]\w*)*)"
    r"|(?P<operator><<|>>|<=|>=|==|!=|&&|\|\||[-+*/%<>&|^~!?:()]))"
)
NUMBER = re.compile(r"(0[xX][0-9a-fA-F']+|0[bB][01']+|[0-9][0-9']*)([uU]?[lLzZ]{0,2}|[lL]{1,2}[uU])")
TYPE_NAME = re.compile(r"[\w\s:*]+")
LEVELS: tuple[tuple[str, ...], ...] = (
    ("||",),
    ("&&",),
    ("|",),
    ("^",),
    ("&",),
    ("==", "!="),
    ("<", ">", "<=", ">="),
    ("<<", ">>"),
    ("+", "-"),
    ("*", "/", "%"),
)


class ExpressionError(ValueError):
    """The text is not a size expression, or its value is refused."""


@dataclass(frozen=True, slots=True)
class Number:
    """A constant, 0 to 2^64 - 1."""

    value: int


@dataclass(frozen=True, slots=True)
class Name:
    """A scalar parameter, by its index."""

    parameter: int
    text: str


@dataclass(frozen=True, slots=True)
class Unary:
    """`~` or `!`."""

    operator: str
    operand: Expression


@dataclass(frozen=True, slots=True)
class Binary:
    """Any operator of LEVELS."""

    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Choice:
    """`condition ? yes : no`."""

    condition: Expression
    yes: Expression
    no: Expression


Expression = Number | Name | Unary | Binary | Choice


def constants_of(text: str, parameters: Mapping[str, int]) -> list[str]:
    """Find the names and ``sizeof (type)`` texts whose values must be known before the text can be parsed."""
    return [
        piece.text for piece in _tokens(text) if piece.kind == "constant" and piece.text not in parameters
    ]


def parse_expression(text: str, parameters: Mapping[str, int], constants: Mapping[str, int]) -> Expression:
    """Parse ``text``; ``parameters`` gives scalar parameters' indices, ``constants`` the other names' values.

    Raises ExpressionError.
    """
    parser = _Parser(_tokens(text), parameters, constants)
    result = parser.choice(0)
    if parser.look() is not None:
        raise ExpressionError(f"unexpected `{parser.look()}`")
    return result


def names_in(expression: Expression) -> set[int]:
    """Collect the indices of the parameters that an expression uses."""
    match expression:
        case Number():
            return set()
        case Name(parameter=index):
            return {index}
        case Unary(operand=inner):
            return names_in(inner)
        case Binary(left=left, right=right):
            return names_in(left) | names_in(right)
        case Choice(condition=condition, yes=yes, no=no):
            return names_in(condition) | names_in(yes) | names_in(no)


def format_expression(expression: Expression) -> str:
    """One spelling per meaning, for the digest and for people."""
    match expression:
        case Number(value=value):
            return str(value)
        case Name(text=text):
            return text
        case Unary(operator=symbol, operand=inner):
            return f"{symbol}{format_expression(inner)}"
        case Binary(operator=symbol, left=left, right=right):
            return f"({format_expression(left)} {symbol} {format_expression(right)})"
        case Choice(condition=condition, yes=yes, no=no):
            return f"({format_expression(condition)} ? {format_expression(yes)} : {format_expression(no)})"


def evaluate(expression: Expression, values: Sequence[int]) -> int:
    """Compute the value for these values of the parameters. Raises ExpressionError where stubs refuse."""
    match expression:
        case Number(value=value):
            return value
        case Name(parameter=index):
            return _checked(values[index])
        case Unary(operator=symbol, operand=inner):
            value = evaluate(inner, values)
            return WORD - 1 - value if symbol == "~" else int(value == 0)
        case Binary():
            return _evaluate_binary(expression, values)
        case Choice(condition=condition, yes=yes, no=no):
            return evaluate(yes if evaluate(condition, values) else no, values)


def _evaluate_binary(expression: Binary, values: Sequence[int]) -> int:
    symbol, left = expression.operator, evaluate(expression.left, values)
    if symbol == "&&":
        return int(left != 0 and evaluate(expression.right, values) != 0)
    if symbol == "||":
        return int(left != 0 or evaluate(expression.right, values) != 0)
    right = evaluate(expression.right, values)
    if symbol in ("/", "%") and right == 0:
        raise ExpressionError("division by zero")
    if symbol in ("<<", ">>") and right >= 64:  # noqa: PLR2004 - bits of a word
        raise ExpressionError("shift by 64 bits or more")
    return _checked(int(OPERATIONS[symbol](left, right)))


OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
    "%": operator.mod,
    "<<": operator.lshift,
    ">>": operator.rshift,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


def _checked(value: int) -> int:
    if not 0 <= value < WORD:
        raise ExpressionError("a value is negative or over 64 bits")
    return value


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number, constant (a name or sizeof) or operator
    text: str


def _tokens(text: str) -> list[_Token]:
    if len(text) > MAX_TEXT:
        raise ExpressionError(f"longer than {MAX_TEXT} characters")
    text = text.strip()
    found: list[_Token] = []
    place = 0
    while place < len(text):
        match = TOKEN.match(text, place)
        if match is None:
            raise ExpressionError(f"`{text[place:].strip()[:1]}` has no place in a size")
        place = match.end()
        name = match["name"]
        if name == "sizeof":
            place, name = _sizeof(text, place)
        if name is not None:
            found.append(_Token("constant", re.sub(r"\s*::\s*", "::", name)))
        else:
            found.append(
                _Token("number" if match["number"] else "operator", match["number"] or match["operator"])
            )
    return found


def _sizeof(text: str, place: int) -> tuple[int, str]:
    start = text.find("(", place)
    end = text.find(")", place)
    inner = text[start + 1 : end].strip()
    if start < 0 or end < 0 or text[place:start].strip() or not TYPE_NAME.fullmatch(inner):
        raise ExpressionError("sizeof wants a type in parentheses")
    return end + 1, f"sizeof ({' '.join(inner.split())})"


class _Parser:
    def __init__(
        self, tokens: list[_Token], parameters: Mapping[str, int], constants: Mapping[str, int]
    ) -> None:
        self.tokens = tokens
        self.place = 0
        self.nodes = 0
        self.parameters = parameters
        self.constants = constants

    def look(self) -> str | None:
        return self.tokens[self.place].text if self.place < len(self.tokens) else None

    def take(self, *wanted: str) -> str | None:
        text = self.look()
        if text is None or text not in wanted:
            return None
        self.place += 1
        return text

    def expect(self, wanted: str) -> None:
        if self.take(wanted) is None:
            raise ExpressionError(f"`{wanted}` expected")

    def choice(self, depth: int) -> Expression:
        condition = self.binary(0, depth + 1)
        if self.take("?") is None:
            return condition
        yes = self.choice(depth + 1)
        self.expect(":")
        return self.node(Choice(condition, yes, self.choice(depth + 1)))

    def binary(self, level: int, depth: int) -> Expression:
        if level == len(LEVELS):
            return self.unary(depth)
        left = self.binary(level + 1, depth)
        while symbol := self.take(*LEVELS[level]):
            left = self.node(Binary(symbol, left, self.binary(level + 1, depth)))
        return left

    def unary(self, depth: int) -> Expression:
        if depth > MAX_DEPTH:
            raise ExpressionError(f"nested deeper than {MAX_DEPTH}")
        if symbol := self.take("~", "!"):
            return self.node(Unary(symbol, self.unary(depth + 1)))
        if self.take("+"):
            return self.unary(depth + 1)
        if self.take("-"):
            raise ExpressionError("a size cannot be negative")
        if self.take("("):
            inner = self.choice(depth + 1)
            self.expect(")")
            return inner
        return self.node(self.leaf())

    def leaf(self) -> Expression:
        if self.place >= len(self.tokens):
            raise ExpressionError("the expression ends too early")
        token = self.tokens[self.place]
        self.place += 1
        if token.kind == "number":
            return Number(_number(token.text))
        if token.kind == "operator":
            raise ExpressionError(f"unexpected `{token.text}`")
        if token.text in self.parameters:
            return Name(self.parameters[token.text], token.text)
        if token.text not in self.constants:
            raise ExpressionError(f"unknown name `{token.text}`")
        return Number(_checked(self.constants[token.text]))

    def node(self, node: Expression) -> Expression:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise ExpressionError(f"more than {MAX_NODES} terms")
        return node


def _number(text: str) -> int:
    match = NUMBER.fullmatch(text)
    if match is None:
        raise ExpressionError(f"`{text}` is not an integer")
    digits = match[1].replace("'", "")
    octal = digits[0] == "0" and digits.isdigit()
    try:
        value = int(digits, 8 if octal else 0)
    except ValueError as error:
        raise ExpressionError(f"`{text}` is not an integer") from error
    return _checked(value)
