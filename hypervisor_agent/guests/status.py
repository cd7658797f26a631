"""Which ``enum cafe_status`` a typed error becomes, and the sentence for people that goes with it."""

from __future__ import annotations

from cafe_lib import errors
from hypervisor_agent.abi import Status

_STATUS: tuple[tuple[type[errors.CafeError], Status], ...] = (
    (errors.VersionError, Status.VERSION),
    (errors.InterfaceError, Status.VERSION),
    (errors.LimitError, Status.LIMIT),
    (errors.ProtocolError, Status.MALFORMED),
    (errors.VerificationError, Status.REFUSED),
    (errors.PolicyError, Status.REFUSED),
    (errors.AccessError, Status.REFUSED),
    (errors.LicenceError, Status.LICENCE),
    (errors.NotFoundError, Status.NOT_FOUND),
    (errors.FaultError, Status.FAULT),
    (errors.DeadlineError, Status.DEADLINE),
    (errors.EnclaveError, Status.EXITED),
    (errors.TransportError, Status.TRANSPORT),
)
"""Most specific first; whatever is not here is the host's failure."""

_ADVICE = {
    Status.REFUSED: "Ask this host's provider.",
    Status.LICENCE: "Ask the marketplace.",
    Status.NOT_FOUND: "Ask the publisher.",
    Status.HOST: "Ask this host's provider.",
    Status.TRANSPORT: "Try again later.",
}


def status_of(error: errors.CafeError) -> Status:
    """Return the status a guest is told."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    return Status.HOST


def message_of(error: errors.CafeError) -> str:
    """Return the fixed sentence and what to do; ``detail`` goes to the agent's log, not to a guest."""
    return f"{error.sentence} {error.hint or _ADVICE.get(status_of(error), '')}".strip()
