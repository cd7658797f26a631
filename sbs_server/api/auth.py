"""Who may call what. Deny by default: an endpoint that is not in the table is closed to everyone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from cafe_lib.errors import ForbiddenError, UnauthenticatedError
from sbs_server.api.context import Context
from sbs_server.domain.values import ADMIN, MARKETPLACE, OPERATOR, PUBLISHER, Identity

PERMISSIONS: Final[Mapping[str, frozenset[str]]] = {
    "create_identity": frozenset({ADMIN}),
    "list_identities": frozenset({ADMIN}),
    "delete_identity": frozenset({ADMIN}),
    "upload_release": frozenset({PUBLISHER}),
    "list_releases": frozenset({ADMIN, PUBLISHER, MARKETPLACE}),
    "show_release": frozenset({ADMIN, PUBLISHER, MARKETPLACE}),
    "revoke_release": frozenset({ADMIN, PUBLISHER}),
    "register_vm": frozenset({OPERATOR}),
    "list_vms": frozenset({ADMIN, OPERATOR}),
    "remove_vm": frozenset({OPERATOR}),
    "issue_licence": frozenset({MARKETPLACE}),
    "list_licences": frozenset({ADMIN, MARKETPLACE, PUBLISHER}),
    "show_licence": frozenset({ADMIN, MARKETPLACE, PUBLISHER}),
    "revoke_licence": frozenset({ADMIN, MARKETPLACE}),
    "approve_host": frozenset({OPERATOR}),
    "list_approvals": frozenset({ADMIN, OPERATOR}),
    "list_hosts": frozenset({ADMIN, OPERATOR}),
    "revoke_host": frozenset({ADMIN, OPERATOR}),
    "show_policy": frozenset({ADMIN, OPERATOR}),
    "set_policy": frozenset({ADMIN, OPERATOR}),
    "list_audit": frozenset({ADMIN}),
}

_FAILED: Final = "failed key"
_PEOPLE: Final = "people"
_bearer = HTTPBearer(auto_error=False, description="An API key, `cafe_<id>_<secret>`.")
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def client_address(request: Request) -> str:
    """Return where the request comes from, for rate limits only."""
    return request.client.host if request.client else "unknown"


async def authorised(request: Request, services: Context, credentials: _Credentials) -> Identity:
    """Return the caller, who may call this endpoint.

    :raises UnauthenticatedError: no valid API key.
    :raises ForbiddenError: its role may not.
    :raises BusyError: too many requests, or too many wrong keys from there.
    """
    operation = getattr(request.scope.get("route"), "operation_id", None) or ""
    if credentials is None:
        raise UnauthenticatedError("no API key")
    try:
        caller = await services.identities.authenticate(credentials.credentials)
    except UnauthenticatedError:
        await services.limiter.take(_FAILED, client_address(request))
        raise
    await services.limiter.take(_PEOPLE, caller.id.hex())
    if caller.role not in PERMISSIONS.get(operation, frozenset()):
        async with services.audit.decision(operation or "unknown", caller.name):
            raise ForbiddenError(f"{operation}: not for the role {caller.role}")
    return caller


Caller = Annotated[Identity, Depends(authorised)]
