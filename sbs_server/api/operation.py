"""Endpoints for who runs hosts and the SBS: approvals, hosts, policy, audit."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request

from sbs_server.api import presented
from sbs_server.api.auth import Caller, authorised
from sbs_server.api.context import Context
from sbs_server.api.paging import Paging
from sbs_server.api.problems import RESPONSES
from sbs_server.api.schemas import Approval, ApprovalCreate, AuditRecord, Host, Page, Policy

router = APIRouter(prefix="/v1", dependencies=[Depends(authorised)], responses=RESPONSES)
_HostId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
_Filter = Annotated[str | None, Query(max_length=200)]
_POLICY_EXAMPLE = {
    "version": 1,
    "pcrs": {"agent": {"alg": "sha256", "index": 14, "values": ["ab" * 32]}},
    "max_quote_age_seconds": 3600,
}


@router.post(
    "/approvals", operation_id="approve_host", tags=["hosts"], summary="Approve a TPM", status_code=201
)
async def approve_host(body: ApprovalCreate, caller: Caller, services: Context) -> Approval:
    """Let the host whose TPM has this endorsement key enrol under this name."""
    found = await services.hosts.approve(caller, bytes.fromhex(body.ek_digest), body.name)
    return presented.approval(found)


@router.get("/approvals", operation_id="list_approvals", tags=["hosts"], summary="List approvals")
async def list_approvals(caller: Caller, services: Context, place: Paging) -> Page[Approval]:
    """List the approvals you may see: an operator its own."""
    found, following = await services.hosts.approvals(caller, place.after, place.limit)
    return Page(items=[presented.approval(value) for value in found], next=following)


@router.get("/hosts", operation_id="list_hosts", tags=["hosts"], summary="List hosts")
async def list_hosts(caller: Caller, services: Context, place: Paging) -> Page[Host]:
    """List the hosts you may see: an operator its own."""
    found, following = await services.hosts.page(caller, place.after, place.limit)
    return Page(items=[presented.host(value) for value in found], next=following)


@router.post(
    "/hosts/{host_id}/revocation", operation_id="revoke_host", tags=["hosts"], summary="Revoke a host"
)
async def revoke_host(host_id: _HostId, caller: Caller, services: Context) -> Host:
    """End its enrolment and its leases now. Its TPM needs a new approval to enrol again, as a new host."""
    return presented.host(await services.hosts.revoke(caller, bytes.fromhex(host_id)))


@router.get("/policy", operation_id="show_policy", tags=["policy"], summary="Show the policy in force")
async def show_policy(services: Context) -> Policy:
    """Show which PCR values make a host good."""
    return presented.policy(await services.policies.show())


@router.put(
    "/policy",
    operation_id="set_policy",
    tags=["policy"],
    summary="Put a policy in force",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object"}, "example": _POLICY_EXAMPLE}},
        }
    },
)
async def set_policy(request: Request, caller: Caller, services: Context) -> Policy:
    """Replace the policy by one of a greater version. Hosts have to be attested anew for further grants."""
    return presented.policy(await services.policies.put(caller.name, await request.body()))


@router.get("/audit", operation_id="list_audit", tags=["audit"], summary="List decisions")
async def list_audit(
    services: Context, place: Paging, actor: _Filter = None, action: _Filter = None
) -> Page[AuditRecord]:
    """List every decision, allowed and refused, oldest first; `after` is the number of a record."""
    equal = {name: value for name, value in (("actor", actor), ("action", action)) if value is not None}
    found, following = await services.audit.page(place.after, place.limit, **equal)
    return Page(items=[presented.audit_record(value) for value in found], next=following)
