"""The wiring: which adapters fill which ports, and the ASGI application over them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from sbs_server.adapters.blobs import open_blobs
from sbs_server.adapters.database import Database
from sbs_server.adapters.keyfiles import load_keys
from sbs_server.adapters.system import RateLimits, SystemClock, SystemRandom
from sbs_server.api import attested, identities, market, operation, problems, releases
from sbs_server.api.context import Services
from sbs_server.api.guard import Guard
from sbs_server.api.schemas import Problem
from sbs_server.domain.ports import Bell, BlobStore, Clock, Keys, Limiter, Random, Steps, Store
from sbs_server.domain.values import Terms
from sbs_server.services.audit import AuditTrail
from sbs_server.services.deployment import Deployments, DeploymentTools
from sbs_server.services.enrolment import Enrolments
from sbs_server.services.events import EventStreams, LocalBell
from sbs_server.services.hosts import Hosts
from sbs_server.services.identities import Identities
from sbs_server.services.licences import Licences
from sbs_server.services.policies import Policies
from sbs_server.services.releases import Releases, ReleaseTools
from sbs_server.services.renewal import Renewals
from sbs_server.services.revocation import Revoker
from sbs_server.services.sessions import Sessions, SessionTools
from sbs_server.services.vms import Vms
from sbs_server.settings import Settings

_DESCRIPTION = """\
The Secret Binary Server verifies hosts and releases secret binaries to them.

Endpoints for people take and give JSON and need an API key (`Authorization: Bearer cafe_...`). Endpoints for
hosts take and give the messages of the protocol; what protects them is inside the messages. Refusals are
problem documents (RFC 9457) with a stable `code`.
"""
_TAGS = [
    {"name": "public", "description": "Needs no API key."},
    {"name": "identities", "description": "Who may do what: administrators."},
    {"name": "releases", "description": "Secret binaries: publishers."},
    {"name": "licences", "description": "Who may run what, how often at once: marketplaces."},
    {"name": "vms", "description": "Which VM is whose, and where: operators."},
    {"name": "hosts", "description": "Which TPMs may enrol: operators."},
    {"name": "policy", "description": "Which measurements make a host good."},
    {"name": "audit", "description": "Every decision: administrators."},
    {"name": "enrolment", "description": "Hosts: credential activation."},
    {"name": "sessions", "description": "Hosts: keys, nonce, quote, verdict."},
    {"name": "deployment", "description": "Hosts: a release for a VM."},
    {"name": "leases", "description": "Hosts: renewal, give back, revocations."},
]


@dataclass(frozen=True, slots=True)
class Parts:
    """What fills the ports."""

    store: Store
    blobs: BlobStore
    keys: Keys
    clock: Clock
    random: Random
    limiter: Limiter
    steps: Steps
    bell: Bell
    terms: Terms


def make_services(parts: Parts) -> Services:
    """Make every service from the parts."""
    store, keys, clock, random, terms = parts.store, parts.keys, parts.clock, parts.random, parts.terms
    audit = AuditTrail(store, clock, parts.limiter)
    revoker = Revoker(clock, parts.bell)
    session_tools = SessionTools(keys, random, clock, parts.limiter, parts.steps, terms)
    deployment_tools = DeploymentTools(parts.blobs, keys, random, clock, parts.limiter, parts.steps, terms)
    return Services(
        store=store,
        keys=keys,
        limiter=parts.limiter,
        audit=audit,
        identities=Identities(store, audit, clock, random),
        enrolments=Enrolments(store, audit, keys, clock, random, terms),
        hosts=Hosts(store, audit, revoker, clock),
        sessions=Sessions(store, audit, session_tools),
        deployments=Deployments(store, audit, deployment_tools),
        renewals=Renewals(store, audit, session_tools),
        events=EventStreams(store, keys, clock, parts.bell, terms),
        releases=Releases(store, audit, revoker, ReleaseTools(parts.blobs, keys, clock, terms)),
        licences=Licences(store, audit, revoker, clock, random),
        vms=Vms(store, audit, revoker, clock),
        policies=Policies(store, audit, clock),
    )


def make_app(services: Services) -> FastAPI:
    """Make the application over services that somebody else closes."""
    app = FastAPI(
        title="CAFE Secret Binary Server",
        version="1",
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        docs_url=None,
        redoc_url=None,
    )
    app.state.services = services
    for router in (
        identities.open_router,
        identities.router,
        releases.router,
        market.router,
        operation.router,
        attested.router,
    ):
        app.include_router(router)
    app.openapi = partial(_document, app)  # type: ignore[method-assign]  # FastAPI's documented way
    problems.install(app)
    app.add_middleware(Guard, limiter=services.limiter)
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, once; without the 422 that FastAPI promises and `problems` replaces."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        for methods in document["paths"].values():
            for operation in methods.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        app.openapi_schema = document
    return app.openapi_schema


@dataclass(frozen=True, slots=True)
class Running:
    """An application with all it runs on."""

    app: FastAPI
    services: Services
    database: Database
    bell: LocalBell


@asynccontextmanager
async def running(settings: Settings, steps: Steps) -> AsyncIterator[Running]:
    """Open everything, bring the database up to date, and close it all in the end; raises HostError."""
    clock, terms = SystemClock(), settings.terms()
    keys = load_keys(settings.keys(), clock.now())
    blobs = open_blobs(settings.objects())
    limiter = RateLimits(settings.rates())
    bell = LocalBell(terms.keep_alive_seconds)
    database = Database(settings.database())
    try:
        await database.migrate(settings.migrations)
        parts = Parts(database, blobs, keys, clock, SystemRandom(), limiter, steps, bell, terms)
        services = make_services(parts)
        yield Running(make_app(services), services, database, bell)
    finally:
        await database.close()
