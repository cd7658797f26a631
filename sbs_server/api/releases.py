"""Endpoints for releases."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request

from sbs_server.api import presented
from sbs_server.api.auth import Caller, authorised
from sbs_server.api.context import Context
from sbs_server.api.paging import Paging
from sbs_server.api.problems import RESPONSES
from sbs_server.api.schemas import Page, Release

router = APIRouter(
    prefix="/v1/releases", tags=["releases"], dependencies=[Depends(authorised)], responses=RESPONSES
)
_Id = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SecretBinaryID in hex.")]
_PACKAGE = {"type": "string", "format": "binary", "description": "A package of kind 2"}


@router.post(
    "",
    operation_id="upload_release",
    summary="Upload a release",
    status_code=201,
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": _PACKAGE}}}
    },
)
async def upload_release(request: Request, caller: Caller, services: Context) -> Release:
    """Take in a package sealed to this SBS. It is checked as it arrives, and visible once all is right."""
    return presented.release(await services.releases.upload(caller, request.stream()))


@router.get("", operation_id="list_releases", summary="List releases")
async def list_releases(caller: Caller, services: Context, place: Paging) -> Page[Release]:
    """List the releases you may see: a publisher its own."""
    found, following = await services.releases.page(caller, place.after, place.limit)
    return Page(items=[presented.release(value) for value in found], next=following)


@router.get("/{release_id}", operation_id="show_release", summary="Show a release")
async def show_release(release_id: _Id, caller: Caller, services: Context) -> Release:
    """Show one release."""
    return presented.release(await services.releases.show(caller, bytes.fromhex(release_id)))


@router.post("/{release_id}/revocation", operation_id="revoke_release", summary="Revoke a release for good")
async def revoke_release(release_id: _Id, caller: Caller, services: Context) -> Release:
    """End its leases now; it is never granted again, nor can it be uploaded again."""
    return presented.release(await services.releases.revoke(caller, bytes.fromhex(release_id)))
