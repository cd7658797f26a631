"""The client of an SBS: one method per endpoint."""

from __future__ import annotations

from cafe_lib.client.host import HostCalls
from cafe_lib.client.people import PeopleCalls


class SbsClient(HostCalls, PeopleCalls):
    """What hosts and people ask of an SBS; blocking, and safe to share between threads."""
