"""Endpoints for hosts: enrolment, sessions, deployment. Bodies are the messages of `cafe_lib.wire`."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import StreamingResponse

from sbs_server.api.context import Context
from sbs_server.api.problems import RESPONSES

CBOR: Final = "application/cbor"
OCTETS: Final = "application/octet-stream"

router = APIRouter(prefix="/v1", responses=RESPONSES)
_Id = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="16 bytes in hex.")]


def _takes(kind: str, message: str) -> dict[str, Any]:
    schema = {"type": "string", "format": "binary", "description": message}
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema}}}}


def _gives(kind: str, message: str) -> dict[int | str, dict[str, Any]]:
    schema = {"type": "string", "format": "binary"}
    return {200: {"description": message, "content": {kind: {"schema": schema}}}}


def _answer(message: bytes) -> Response:
    return Response(message, media_type=CBOR)


@router.post(
    "/enrolments",
    operation_id="begin_enrolment",
    tags=["enrolment"],
    summary="Ask to enrol",
    response_class=Response,
    openapi_extra=_takes(CBOR, "EnrolmentRequest"),
    responses=_gives(CBOR, "EnrolmentChallenge"),
)
async def begin_enrolment(request: Request, services: Context) -> Response:
    """Take the keys of a host whose TPM an operator approved; give a challenge only that TPM can answer."""
    return _answer(await services.enrolments.begin(await request.body()))


@router.post(
    "/enrolments/{enrolment_id}/activation",
    operation_id="activate_enrolment",
    tags=["enrolment"],
    summary="Answer the challenge",
    response_class=Response,
    openapi_extra=_takes(CBOR, "EnrolmentProof"),
    responses=_gives(CBOR, "EnrolmentResult in a MacMessage"),
)
async def activate_enrolment(request: Request, enrolment_id: _Id, services: Context) -> Response:
    """Enrol the host. Works once for each challenge."""
    message = await services.enrolments.activate(bytes.fromhex(enrolment_id), await request.body())
    return _answer(message)


@router.post(
    "/sessions",
    operation_id="open_session",
    tags=["sessions"],
    summary="Open a session (deployment steps 3 and 4)",
    response_class=Response,
    openapi_extra=_takes(CBOR, "SessionRequest in a SignedMessage"),
    responses=_gives(CBOR, "SessionOffer in a SignedMessage"),
)
async def open_session(request: Request, services: Context) -> Response:
    """Agree on keys with an enrolled host and give it a nonce and the PCRs to quote."""
    return _answer(await services.sessions.open(await request.body()))


@router.post(
    "/sessions/{session_id}/evidence",
    operation_id="send_evidence",
    tags=["sessions"],
    summary="Show the evidence (deployment steps 6 to 8)",
    response_class=Response,
    openapi_extra=_takes(CBOR, "Evidence in a MacMessage"),
    responses=_gives(CBOR, "AttestResult in a MacMessage"),
)
async def send_evidence(request: Request, session_id: _Id, services: Context) -> Response:
    """Judge a quote, once for each session. The verdict is authentic in both cases, so it comes as 200."""
    return _answer(await services.sessions.attest(bytes.fromhex(session_id), await request.body()))


@router.post(
    "/sessions/{session_id}/deployments",
    operation_id="deploy",
    tags=["deployment"],
    summary="Ask for a release (deployment steps 9 to 11)",
    response_class=StreamingResponse,
    openapi_extra=_takes(OCTETS, "DeployRequest as a DEPLOY record"),
    responses=_gives(OCTETS, "A record stream: GRANT, CHUNK..., END"),
)
async def deploy(request: Request, session_id: _Id, services: Context) -> StreamingResponse:
    """Decide whether this VM may have this release now, take a seat, and stream it encrypted."""
    stream = await services.deployments.deploy(bytes.fromhex(session_id), await request.body())
    return StreamingResponse(stream, media_type=OCTETS)


@router.post(
    "/sessions/{session_id}/renewal-challenges",
    operation_id="challenge_renewal",
    tags=["leases"],
    summary="Ask for a nonce to renew with",
    response_class=Response,
    openapi_extra=_takes(CBOR, "RenewalRequest in a MacMessage"),
    responses=_gives(CBOR, "RenewalChallenge in a MacMessage"),
)
async def challenge_renewal(request: Request, session_id: _Id, services: Context) -> Response:
    """Give a fresh nonce; an older one of the session is void."""
    return _answer(await services.renewals.challenge(bytes.fromhex(session_id), await request.body()))


@router.post(
    "/sessions/{session_id}/renewals",
    operation_id="renew",
    tags=["leases"],
    summary="Renew every lease of the host",
    response_class=Response,
    openapi_extra=_takes(CBOR, "Evidence in a MacMessage"),
    responses=_gives(CBOR, "RenewalResult in a MacMessage"),
)
async def renew(request: Request, session_id: _Id, services: Context) -> Response:
    """Judge a quote over the session's renewal nonce, and renew."""
    return _answer(await services.renewals.renew(bytes.fromhex(session_id), await request.body()))


@router.post(
    "/sessions/{session_id}/lease-ends",
    operation_id="end_lease",
    tags=["leases"],
    summary="Give a seat back",
    status_code=204,
    openapi_extra=_takes(CBOR, "LeaseEnd in a MacMessage"),
)
async def end_lease(request: Request, session_id: _Id, services: Context) -> None:
    """End a lease whose enclave has ended; again is no error."""
    await services.renewals.end_lease(bytes.fromhex(session_id), await request.body())


@router.post(
    "/sessions/{session_id}/events",
    operation_id="follow_events",
    tags=["leases"],
    summary="Follow revocations",
    response_class=StreamingResponse,
    openapi_extra=_takes(CBOR, "EventsRequest in a MacMessage"),
    responses=_gives(
        OCTETS, "Frames: u32 length, then a Revocation in a SignedMessage; length 0 keeps alive"
    ),
)
async def follow_events(request: Request, session_id: _Id, services: Context) -> StreamingResponse:
    """Stream what was revoked since the number given, and what will be, until the session is over."""
    stream = await services.events.follow(bytes.fromhex(session_id), await request.body())
    return StreamingResponse(stream, media_type=OCTETS)
