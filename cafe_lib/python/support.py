# ruff: noqa: ANN401 - ctypes' own types say no more
"""How a generated module calls a public library: `cafe build` copies this file to its beginning."""

from __future__ import annotations

import array
import ctypes
import enum
import operator
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class CafeStatus(enum.IntEnum):
    """What a call that was not carried out ended with; the values of `enum cafe_status` in cafe_abi.h."""

    MALFORMED = 1
    LIMIT = 2
    ENTRY = 3
    FAULT = 4
    DEADLINE = 5
    EXITED = 6
    ABORT = 7
    AGENT = 8
    REFUSED = 9
    LICENCE = 10
    VERSION = 11
    NOT_FOUND = 12
    HOST = 13
    REVOKED = 14
    TRANSPORT = 15
    CALLBACK = 16


class CafeCallError(Exception):
    """A call was not carried out; ``status`` is a CafeStatus, the text says what to do about it."""

    def __init__(self, function: str, status: int, message: str) -> None:
        super().__init__(f"{function}: {message or f'status {status}'}")
        self.function = function
        self.status = status


class _Record(ctypes.Structure):
    """A C struct: members are attributes."""

    def __repr__(self) -> str:
        names = (str(one[0]) for one in self._fields_)
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"


def _fill(target: Any, values: Sequence[Any]) -> None:
    """Set the first elements of an array member."""
    if len(values) > len(target):
        raise ValueError(f"{len(values)} elements, there is room for {len(target)}")
    for index, value in enumerate(values):
        target[index] = tuple(value) if isinstance(value, list) else value


class _Thread(threading.local):
    raised: BaseException | None = None  # in a callback of the call that this thread is in


_thread = _Thread()
_kept: list[object] = []  # callbacks: the library may call them for as long as the process lives


def _load(name: str) -> ctypes.CDLL:
    """Load lib<name>.so: from $CAFE_LIBRARY_DIR, this module's folder or the one above, or the system's."""
    here = Path(__file__).resolve().parent
    asked = os.environ.get("CAFE_LIBRARY_DIR")
    places = [Path(asked)] if asked else [here, here.parent]
    file = f"lib{name}.so"
    found = next((str(place / file) for place in places if (place / file).is_file()), file)
    library = ctypes.CDLL(found, use_errno=True)
    library.cafe_last_error.restype = ctypes.c_int
    library.cafe_error_message.restype = ctypes.c_char_p
    library.cafe_alloc.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    library.cafe_alloc.restype = ctypes.c_void_p
    library.cafe_free.argtypes = [ctypes.c_void_p]
    library.cafe_free.restype = None
    return library


def _function(library: ctypes.CDLL, symbol: str, result: Any, *params: Any) -> Callable[..., Any]:
    function: Any = library[symbol]
    function.restype = result
    function.argtypes = params
    return function  # type: ignore[no-any-return]


def _call(library: ctypes.CDLL, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call and tell how it went: raise what a callback of this call raised, then CafeCallError."""
    outer, _thread.raised = _thread.raised, None
    try:
        result = function(*arguments)
        status = library.cafe_last_error()
        if _thread.raised is not None:
            raise _thread.raised
    finally:
        _thread.raised = outer
    if status:
        raise CafeCallError(name, status, (library.cafe_error_message() or b"").decode(errors="replace"))
    return result


def _shared(library: ctypes.CDLL, name: str, size: int) -> memoryview:
    """Memory of the enclave's channel; given back when the last view of it has gone."""
    address = library.cafe_alloc(name.encode(), size)
    if not address:
        raise MemoryError((library.cafe_error_message() or b"").decode(errors="replace"))
    memory = (ctypes.c_ubyte * size).from_address(address)
    weakref.finalize(memory, library.cafe_free, address)
    return memoryview(memory).cast("B")


# ---- what goes in


def _whole(value: int, low: int, high: int, name: str) -> int:
    number = operator.index(value)
    if not low <= number <= high:
        raise OverflowError(f"{name}: {number} is not between {low} and {high}")
    return number


def _text(value: str | bytes | None, name: str) -> bytes | None:
    data = value.encode(errors="surrogateescape") if isinstance(value, str) else value
    if data is not None and b"\0" in data:
        raise ValueError(f"{name}: a string with a NUL inside")
    return None if data is None else bytes(data)


def _read(value: Any, code: str, kind: Any, size: int, name: str) -> tuple[Any, int]:
    """Make a buffer that C reads, and say how many elements of ``size`` bytes it has."""
    if value is None:
        return None, 0
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview | array.array):
        value = array.array(code, value) if code else (kind * len(value))(*value)
    view = memoryview(value)
    count = _elements(view, size, name)
    if isinstance(value, bytes):
        return value, count
    if view.readonly:
        return (ctypes.c_char * view.nbytes).from_buffer_copy(view), count
    return (ctypes.c_char * view.nbytes).from_buffer(view), count


def _change(value: WriteableBuffer | None, size: int, name: str) -> tuple[Any, int]:
    """Let C write into the caller's own buffer."""
    if value is None:
        return None, 0
    view = memoryview(value)
    count = _elements(view, size, name)
    if view.readonly:
        raise TypeError(f"{name}: is changed by the call, so it cannot be read-only")
    return (ctypes.c_char * view.nbytes).from_buffer(view), count


def _elements(view: memoryview, size: int, name: str) -> int:
    if not view.c_contiguous:
        raise ValueError(f"{name}: not contiguous")
    count, rest = divmod(view.nbytes, size)
    if rest:
        raise ValueError(f"{name}: {view.nbytes} bytes are not a number of elements of {size} bytes")
    return count


def _enough(there: int, needed: int, name: str) -> None:
    if there < needed:
        raise ValueError(f"{name}: {there} elements, {needed} are needed")


# ---- size expressions: what the library accepts has this value, too


def _count(value: int, name: str) -> int:
    if not 0 <= value < 2**63:
        raise ValueError(f"{name}: a size of {value}")
    return value


def _divide(left: int, right: int) -> int:
    return left // right if right else -1


def _modulo(left: int, right: int) -> int:
    return left % right if right else -1


def _shift(left: int, right: int) -> int:
    return left << right if 0 <= right < 64 else -1  # noqa: PLR2004 - bits of a word


# ---- callbacks


def _guard(serve: Callable[..., Any], otherwise: Any) -> Callable[..., Any]:
    """Keep an exception for the call that the callback belongs to: C cannot pass it on."""

    def run(*arguments: Any) -> Any:
        try:
            return serve(*arguments)
        except BaseException as error:  # noqa: BLE001 - raised again by _call
            _thread.raised = _thread.raised or error
            return otherwise

    return run


def _install(library: ctypes.CDLL, name: str, kind: Any, run: Callable[..., Any]) -> None:
    function = kind(run)
    _kept.append(function)
    library.cafe_set_callback.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    if library.cafe_set_callback(name.encode(), ctypes.cast(function, ctypes.c_void_p)) != 0:
        raise LookupError(f"{name}: the library has no such callback")


def _bytes_at(address: int | None, size: int) -> bytes:
    return ctypes.string_at(address, size) if address else b""


def _put_at(address: int | None, size: int, value: ReadableBuffer, name: str) -> None:
    data = memoryview(value).cast("B") if memoryview(value).nbytes else memoryview(b"")
    if len(data) > size:
        raise ValueError(f"{name}: {len(data)} bytes, there is room for {size}")
    if address:
        ctypes.memmove(address, bytes(data), len(data))
