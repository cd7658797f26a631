"""Refusals of the SBS (RFC 9457 problem documents) as the errors of this project's tree."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final

from cafe_lib import errors
from cafe_lib.errors import CafeError, ProtocolError, TransportError

MAX_PROBLEM_BYTES: Final = 64 * 1024
MAX_DETAIL_CHARS: Final = 1000
MAX_FIELDS: Final = 16
_SERVER_FAILED: Final = 500
# What a proxy or a wrong address answers, where no problem document says more.
_BARE_STATUS: Final[Mapping[int, type[CafeError]]] = {
    401: errors.UnauthenticatedError,
    403: errors.ForbiddenError,
    404: errors.NotFoundError,
    408: errors.TransportError,
    429: errors.BusyError,
}


def _tree(root: type[CafeError]) -> Iterator[type[CafeError]]:
    yield root
    for branch in root.__subclasses__():
        if branch.__module__ == errors.__name__:
            yield from _tree(branch)


ERRORS_BY_CODE: Final[Mapping[str, type[CafeError]]] = {error.code: error for error in _tree(CafeError)}


def printable(text: str, most: int = MAX_DETAIL_CHARS) -> str:
    """Return ``text`` cut to ``most`` characters, without anything a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:most]).strip()


def error_from_answer(status: int, body: bytes) -> CafeError:
    """Return the error that a refusal stands for; any bytes at all give one.

    :param status: the HTTP status, 300 or above.
    :param body: the answer, bounded by the caller.
    """
    problem = _parse(body)
    code = problem.get("code")
    kind = ERRORS_BY_CODE.get(code) if isinstance(code, str) else None
    detail = _detail(problem) or f"the server answered with HTTP status {status}"
    if kind is None or kind is CafeError:
        kind = _by_status(status)
    return kind(detail)


def _by_status(status: int) -> type[CafeError]:
    if status >= _SERVER_FAILED:
        return TransportError
    return _BARE_STATUS.get(status, ProtocolError)


def _parse(body: bytes) -> dict[str, object]:
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return problem if isinstance(problem, dict) else {}


def _detail(problem: Mapping[str, object]) -> str:
    """Return the title, and which members were bad."""
    title, fields = problem.get("title"), problem.get("fields")
    text = printable(title) if isinstance(title, str) else ""
    if isinstance(fields, list) and fields:
        text += " Wrong: " + ", ".join(str(field) for field in fields[:MAX_FIELDS])
    return printable(text)
