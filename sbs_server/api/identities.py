"""Endpoints for identities, and what needs none: public keys and health."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from cafe_lib.wire.keys import release_key_id
from sbs_server.api import presented
from sbs_server.api.auth import Caller, authorised
from sbs_server.api.context import Context
from sbs_server.api.paging import Paging
from sbs_server.api.problems import RESPONSES
from sbs_server.api.schemas import Health, Identity, IdentityCreate, IdentityCreated, Keys, Page
from sbs_server.services.identities import NewIdentity

router = APIRouter(prefix="/v1", tags=["identities"], dependencies=[Depends(authorised)], responses=RESPONSES)
open_router = APIRouter(tags=["public"], responses=RESPONSES)
_Id = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]


@router.post("/identities", operation_id="create_identity", summary="Create an identity", status_code=201)
async def create_identity(body: IdentityCreate, caller: Caller, services: Context) -> IdentityCreated:
    """Give somebody a role. The API key is in this answer and nowhere else."""
    new = NewIdentity(body.name, body.role.value, bytes.fromhex(body.public_key or ""))
    return presented.created(await services.identities.create(caller.name, new))


@router.get("/identities", operation_id="list_identities", summary="List identities")
async def list_identities(services: Context, place: Paging) -> Page[Identity]:
    """List identities, ended ones too."""
    found, following = await services.identities.page(place.after, place.limit)
    return Page(items=[presented.identity(value) for value in found], next=following)


@router.delete(
    "/identities/{identity_id}",
    operation_id="delete_identity",
    summary="End an identity",
    status_code=204,
)
async def delete_identity(identity_id: _Id, caller: Caller, services: Context) -> None:
    """Void its API key at once. Its name stays taken; the last administrator cannot be ended."""
    await services.identities.delete(caller.name, bytes.fromhex(identity_id))


@open_router.get("/v1/keys", operation_id="show_keys", summary="Show the public keys of this SBS")
async def show_keys(services: Context) -> Keys:
    """Hosts pin the root, publishers the release key; compare them with what the operator tells you."""
    public = services.keys.release_key.public
    return Keys(
        sbs_root=services.keys.root_public.hex(),
        release_key=public.hex(),
        release_key_id=release_key_id(public).hex(),
    )


@open_router.get("/healthz", operation_id="health", summary="Tell whether the SBS works")
async def health(services: Context) -> Health:
    """Answer once the database has."""
    async with services.store.read() as tx:
        await tx.policies.latest()
    return Health()
