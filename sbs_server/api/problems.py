"""Errors as RFC 9457 problem documents; the only place that knows HTTP statuses."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cafe_lib import errors
from cafe_lib.errors import CafeError
from sbs_server.api.schemas import Problem

_STATUSES: Final[tuple[tuple[type[CafeError], int], ...]] = (
    (errors.LimitError, 413),
    (errors.ProtocolError, 400),
    (errors.SessionError, 409),
    (errors.VerificationError, 403),
    (errors.PolicyError, 403),
    (errors.LicenceError, 403),
    (errors.UnauthenticatedError, 401),
    (errors.AccessError, 403),
    (errors.NotFoundError, 404),
    (errors.ConflictError, 409),
    (errors.BusyError, 429),
    (errors.TransportError, 503),
)
"""Most specific first; whatever is not here is ours to mend: 500."""
_OF_STATUS: Final[dict[int, type[CafeError]]] = {
    404: errors.NotFoundError,
    405: errors.ProtocolError,
    408: errors.TransportError,
    413: errors.LimitError,
}
_RETRY_SECONDS: Final = "1"
_MAX_FIELDS: Final = 20
_MAX_FIELD_CHARACTERS: Final = 64

RESPONSES: Final[dict[int | str, dict[str, object]]] = {
    "default": {
        "description": "Refused; `code` says why.",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}


class BodyTooLongError(HTTPException):
    """The body is over its bound; FastAPI lets this kind through while it reads a body."""

    def __init__(self) -> None:
        super().__init__(413)


class BodyTooSlowError(HTTPException):
    """The body did not come in time."""

    def __init__(self) -> None:
        super().__init__(408)


def status_of(error: CafeError) -> int:
    """Return the status that goes with an error."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def problem(error: CafeError | type[CafeError], status: int, fields: list[str] | None = None) -> JSONResponse:
    """Return a document with code and fixed sentence, and nothing of what the error says of this case."""
    document = Problem(
        type=f"urn:cafe:problem:{error.code}",
        title=error.sentence,
        status=status,
        code=error.code,
        fields=fields,
    )
    headers = {}
    if status == status_of(errors.UnauthenticatedError()):
        headers["www-authenticate"] = "Bearer"
    if error.retryable:
        headers["retry-after"] = _RETRY_SECONDS
    content = document.model_dump(exclude_none=True)
    return JSONResponse(content, status, headers, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Have the app answer every error with a problem document."""
    app.add_exception_handler(CafeError, _of_cafe_error)
    app.add_exception_handler(RequestValidationError, _of_bad_request)
    app.add_exception_handler(HTTPException, _of_http_error)


def failure() -> JSONResponse:
    """Return the answer to what must not happen."""
    return problem(CafeError, status_of(CafeError()))


async def _of_cafe_error(_request: Request, error: Exception) -> JSONResponse:
    known = error if isinstance(error, CafeError) else CafeError()
    return problem(known, status_of(known))


async def _of_bad_request(_request: Request, error: Exception) -> JSONResponse:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    fields = [".".join(str(part) for part in item["loc"][1:]) for item in found[:_MAX_FIELDS]]
    names = [field[:_MAX_FIELD_CHARACTERS] for field in fields if field.isprintable()]
    return problem(errors.MalformedError, status_of(errors.MalformedError()), names or None)


async def _of_http_error(_request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return problem(_OF_STATUS.get(status, errors.MalformedError), status)
