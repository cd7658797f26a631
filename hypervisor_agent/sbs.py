"""What the agent asks of the SBS: bytes there and back. The HTTP client fills this port."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class Sbs(Protocol):
    """Every method blocks and raises TransportError, or the typed error of the SBS's refusal."""

    def enrol(self, request: bytes) -> bytes:
        """Send an EnrolmentRequest; return the EnrolmentChallenge."""

    def activate(self, enrolment_id: bytes, proof: bytes) -> bytes:
        """Send the EnrolmentProof; return the EnrolmentResult."""

    def open_session(self, request: bytes) -> bytes:
        """Send a SessionRequest; return the SessionOffer."""

    def send_evidence(self, session_id: bytes, evidence: bytes) -> bytes:
        """Send Evidence; return the AttestResult."""

    def deploy(self, session_id: bytes, record: bytes) -> AbstractContextManager[Iterator[bytes]]:
        """Send a DeployRequest's record; give the record stream."""

    def renewal_challenge(self, session_id: bytes, request: bytes) -> bytes:
        """Send a RenewalRequest; return the RenewalChallenge."""

    def renew(self, session_id: bytes, evidence: bytes) -> bytes:
        """Send the renewal's Evidence; return the RenewalResult."""

    def end_lease(self, session_id: bytes, message: bytes) -> None:
        """Send a LeaseEnd."""

    def events(self, session_id: bytes, request: bytes) -> AbstractContextManager[Iterator[bytes]]:
        """Send an EventsRequest; give the stream of revocations."""
