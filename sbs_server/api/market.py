"""Endpoints for licences and VMs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from sbs_server.api import presented
from sbs_server.api.auth import Caller, authorised
from sbs_server.api.context import Context
from sbs_server.api.paging import Paging
from sbs_server.api.problems import RESPONSES
from sbs_server.api.schemas import Licence, LicenceCreate, Page, Vm, VmCreate
from sbs_server.services.licences import NewLicence
from sbs_server.services.vms import NewVm

router = APIRouter(prefix="/v1", dependencies=[Depends(authorised)], responses=RESPONSES)
_LicenceId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
_VmId = Annotated[str, Path(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]{0,63}$")]


@router.post(
    "/licences",
    operation_id="issue_licence",
    tags=["licences"],
    summary="Issue a licence",
    status_code=201,
)
async def issue_licence(body: LicenceCreate, caller: Caller, services: Context) -> Licence:
    """Let a tenant, or one VM, run an app on so many enclaves at once."""
    new = NewLicence(body.app, body.tenant, body.vm_id, body.seats, int(body.expires_at.timestamp()))
    return presented.licence(await services.licences.issue(caller, new))


@router.get("/licences", operation_id="list_licences", tags=["licences"], summary="List licences")
async def list_licences(caller: Caller, services: Context, place: Paging) -> Page[Licence]:
    """List the licences you may see: a marketplace those it issued, a publisher those of its apps."""
    found, following = await services.licences.page(caller, place.after, place.limit)
    return Page(items=[presented.licence(value) for value in found], next=following)


@router.get(
    "/licences/{licence_id}", operation_id="show_licence", tags=["licences"], summary="Show a licence"
)
async def show_licence(licence_id: _LicenceId, caller: Caller, services: Context) -> Licence:
    """Show one licence."""
    return presented.licence(await services.licences.show(caller, bytes.fromhex(licence_id)))


@router.post(
    "/licences/{licence_id}/revocation",
    operation_id="revoke_licence",
    tags=["licences"],
    summary="Revoke a licence",
)
async def revoke_licence(licence_id: _LicenceId, caller: Caller, services: Context) -> Licence:
    """End it and its leases now."""
    return presented.licence(await services.licences.revoke(caller, bytes.fromhex(licence_id)))


@router.post("/vms", operation_id="register_vm", tags=["vms"], summary="Register a VM", status_code=201)
async def register_vm(body: VmCreate, caller: Caller, services: Context) -> Vm:
    """Say on which of your hosts a VM runs, and whose it is."""
    new = NewVm(body.vm_id, bytes.fromhex(body.host_id), body.tenant)
    return presented.vm(await services.vms.register(caller, new))


@router.get("/vms", operation_id="list_vms", tags=["vms"], summary="List VMs")
async def list_vms(caller: Caller, services: Context, place: Paging) -> Page[Vm]:
    """List the VMs you may see: an operator its own."""
    found, following = await services.vms.page(caller, place.after, place.limit)
    return Page(items=[presented.vm(value) for value in found], next=following)


@router.delete("/vms/{vm_id}", operation_id="remove_vm", tags=["vms"], summary="Forget a VM", status_code=204)
async def remove_vm(vm_id: _VmId, caller: Caller, services: Context) -> None:
    """End its leases now. You may register it again, for the same tenant."""
    await services.vms.remove(caller, vm_id)
