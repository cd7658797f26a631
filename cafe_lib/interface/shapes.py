"""C types that may cross: sizes, layouts and padding, or the path to what cannot be copied."""

from __future__ import annotations

import itertools
from collections.abc import Collection

from clang.cindex import Cursor, CursorKind, Type

from cafe_lib.interface.diagnostics import ObstacleError
from cafe_lib.interface.model import Hole, Kind, Shape

MAX_TYPE_BYTES = 1 << 20
MAX_ALIGN = 16
MAX_HOLES = 4096
MAX_NESTING = 64
LONG_DOUBLE_BYTES = 10  # of 16
BOOL_MASK = b"\x01"  # the other bits of a bool are padding: a compiler may index with the whole byte

UNSIGNED = {"CHAR_U", "UCHAR", "CHAR16", "CHAR32", "USHORT", "UINT", "ULONG", "ULONGLONG", "UINT128"}
SIGNED = {"CHAR_S", "SCHAR", "WCHAR", "SHORT", "INT", "LONG", "LONGLONG", "INT128"}
FLOATING = {"FLOAT", "DOUBLE", "LONGDOUBLE", "FLOAT128", "HALF", "IBM128", "BFLOAT16"}
POINTERS = {"POINTER", "LVALUEREFERENCE", "RVALUEREFERENCE", "BLOCKPOINTER", "MEMBERPOINTER", "NULLPTR"}
FUNCTIONS = {"FUNCTIONPROTO", "FUNCTIONNOPROTO"}

FLATTEN = (
    "pass what it points to as a parameter of its own, or the struct by pointer and say on the member "
    "how it is used: CAFE_IN(n), CAFE_OUT(n), CAFE_INOUT(n), CAFE_STR(max) or CAFE_OPAQUE"
)
BY_NAME = "declare the function itself CAFE_CALLBACK, and call it by its name"


def shape_of(declared: Type, path: str, followed: Collection[str] = ()) -> Shape:
    """Describe a type. ``path`` is the parameter's name, ``followed`` its pointers that are copied apart.

    Raises ObstacleError.
    """
    walk = _Walk(followed)
    text, mask = walk.describe(declared, path, 0)
    kind = _kind(declared.get_canonical())
    size, align = declared.get_size(), declared.get_align()
    if align > MAX_ALIGN:
        what = f"{declared.spelling} is aligned to {align}, {MAX_ALIGN} is the most"
        raise ObstacleError(path, what, "use a type without the stricter alignment")
    return Shape(declared.spelling, kind, size, align, text, _holes(mask, path))


def is_function_pointer(declared: Type) -> bool:
    """Recognise a callback, in C or C++."""
    canonical = declared.get_canonical()
    return canonical.kind.name in FUNCTIONS or (
        canonical.kind.name in POINTERS and canonical.get_pointee().get_canonical().kind.name in FUNCTIONS
    )


def _kind(canonical: Type) -> Kind:
    name = canonical.kind.name
    if name == "ENUM":
        return _kind(canonical.get_declaration().enum_type.get_canonical())
    if name == "BOOL":
        return Kind.BOOLEAN
    if name in UNSIGNED:
        return Kind.UNSIGNED
    if name in SIGNED:
        return Kind.SIGNED
    return Kind.FLOATING if name in FLOATING else Kind.RECORD


def _holes(mask: bytes, path: str) -> tuple[Hole, ...]:
    holes, place = [], 0
    for value, run in itertools.groupby(mask):
        count = sum(1 for _ in run)
        if value != 0xFF:  # noqa: PLR2004 - a byte of which every bit is used
            holes.append(Hole(place, count, value))
        place += count
    if len(holes) > MAX_HOLES:
        raise ObstacleError(path, "too much scattered padding", "name the padding as members")
    return tuple(holes)


class _Walk:
    """Describes a type once, however often it occurs inside another."""

    def __init__(self, followed: Collection[str] = ()) -> None:
        self.followed = followed
        self.known: dict[str, tuple[str, bytes]] = {}

    def describe(self, declared: Type, path: str, depth: int) -> tuple[str, bytes]:
        """Its layout as text, and which bits of it hold values."""
        canonical = declared.get_canonical()
        name = canonical.kind.name
        if is_function_pointer(declared):
            raise ObstacleError(f"{path}: {declared.spelling}", "function pointer", BY_NAME)
        if name in POINTERS:
            raise ObstacleError(f"{path}: {declared.spelling}", "pointer inside a copied type", FLATTEN)
        size = canonical.get_size()
        if size < 0 or depth > MAX_NESTING:
            raise ObstacleError(f"{path}: {declared.spelling}", "incomplete type", "define it in the header")
        if size > MAX_TYPE_BYTES:
            mend = "pass a buffer of smaller elements"
            raise ObstacleError(f"{path}: {declared.spelling}", f"over {MAX_TYPE_BYTES} bytes", mend)
        if name == "RECORD":
            return self._record(canonical, path, depth)
        if name in ("CONSTANTARRAY", "VECTOR", "EXTVECTOR", "COMPLEX"):
            return self._sequence(canonical, path, depth)
        return _scalar(canonical, declared, path)

    def _sequence(self, canonical: Type, path: str, depth: int) -> tuple[str, bytes]:
        if canonical.kind.name == "COMPLEX":
            return f"c{canonical.get_size()}", b"\xff" * canonical.get_size()
        text, mask = self.describe(canonical.element_type, f"{path}[]", depth + 1)
        return f"[{canonical.element_count}]{text}", (mask * canonical.element_count).ljust(
            canonical.get_size(), b"\0"
        )

    def _record(self, canonical: Type, path: str, depth: int) -> tuple[str, bytes]:
        key = canonical.spelling
        if key not in self.known:
            _check_plain(canonical, path)
            mask = bytearray(canonical.get_size())
            texts = [self._member(member, path, depth, mask) for member in canonical.get_fields()]
            union = canonical.get_declaration().kind == CursorKind.UNION_DECL
            text = (
                f"{'u' if union else 's'}{canonical.get_size()}/{canonical.get_align()}{{{','.join(texts)}}}"
            )
            self.known[key] = (text, bytes(mask))
        return self.known[key]

    def _member(self, member: Cursor, path: str, depth: int, mask: bytearray) -> str:
        bits = member.get_field_offsetof()
        name = f"{path}.{member.spelling}" if member.spelling.isidentifier() else path
        if member.is_bitfield():
            width = member.get_bitfield_width()
            for bit in range(bits, bits + width) if member.spelling else ():
                mask[bit // 8] |= 1 << bit % 8
            return f"{bits}:{width}{member.spelling}"
        if depth == 0 and member.spelling in self.followed:
            text, inner = "p", b"\xff" * member.type.get_size()
        else:
            text, inner = self.describe(member.type, name, depth + 1)
        for index, used in enumerate(inner, bits // 8):
            mask[index] |= used
        return f"{bits // 8}={text}{member.spelling}"


def _scalar(canonical: Type, declared: Type, path: str) -> tuple[str, bytes]:
    size, name = canonical.get_size(), canonical.kind.name
    if name == "ENUM":
        return _scalar(canonical.get_declaration().enum_type.get_canonical(), declared, path)
    if name == "LONGDOUBLE":
        return "f80", b"\xff" * LONG_DOUBLE_BYTES + bytes(size - LONG_DOUBLE_BYTES)
    if name == "BOOL":
        return f"b{size}", BOOL_MASK.ljust(size, b"\0")
    for letter, names in (("u", UNSIGNED), ("i", SIGNED), ("f", FLOATING)):
        if name in names:
            return f"{letter}{size}", b"\xff" * size
    mend = "use a scalar, a plain struct or a buffer"
    raise ObstacleError(f"{path}: {declared.spelling}", "a type that cannot be copied", mend)


def _check_plain(canonical: Type, path: str) -> None:
    children = canonical.get_declaration().get_children()
    based = any(child.kind == CursorKind.CXX_BASE_SPECIFIER for child in children)
    if not canonical.is_pod() or based:
        what = (
            "has a base class" if based else "not trivially copyable (constructors, virtual functions, ...)"
        )
        mend = "pass a plain struct of scalars and arrays, or a buffer (data and size)"
        raise ObstacleError(f"{path}: {canonical.spelling}", what, mend)
