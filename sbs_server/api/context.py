"""What the endpoints call: the services, as the wiring made them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from sbs_server.domain.ports import Keys, Limiter, Store
from sbs_server.services.audit import AuditTrail
from sbs_server.services.deployment import Deployments
from sbs_server.services.enrolment import Enrolments
from sbs_server.services.events import EventStreams
from sbs_server.services.hosts import Hosts
from sbs_server.services.identities import Identities
from sbs_server.services.licences import Licences
from sbs_server.services.policies import Policies
from sbs_server.services.releases import Releases
from sbs_server.services.renewal import Renewals
from sbs_server.services.sessions import Sessions
from sbs_server.services.vms import Vms


@dataclass(frozen=True, slots=True)
class Services:
    """Every use case of the SBS."""

    store: Store
    keys: Keys
    limiter: Limiter
    audit: AuditTrail
    identities: Identities
    enrolments: Enrolments
    hosts: Hosts
    sessions: Sessions
    deployments: Deployments
    renewals: Renewals
    events: EventStreams
    releases: Releases
    licences: Licences
    vms: Vms
    policies: Policies


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Context = Annotated[Services, Depends(_services)]
