"""What a host asks: encoded messages there and back, never looked into here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final

from cafe_lib.client.connection import CBOR, OCTETS, Call, Connection
from cafe_lib.wire import limits

_RECORD_OVERHEAD_BYTES: Final = 1 + 8 + 4 + 32
MAX_STREAM_BYTES: Final = (
    limits.MAX_GRANT_BYTES
    + limits.MAX_CHUNKS * (limits.CHUNK_BYTES + _RECORD_OVERHEAD_BYTES)
    + limits.MAX_MESSAGE_BYTES
)
# One connection's worth; the agent asks again from the number it has seen.
MAX_EVENT_STREAM_BYTES: Final = 1 << 30


class HostCalls(Connection):
    """Every method blocks; it raises TransportError, or the typed error of the SBS's refusal."""

    def _exchange(self, path: str, message: bytes) -> bytes:
        return self.ask(Call("POST", path, limits.MAX_MESSAGE_BYTES, CBOR, message))

    def enrol(self, request: bytes) -> bytes:
        """Send an EnrolmentRequest; return the EnrolmentChallenge."""
        return self._exchange("/v1/enrolments", request)

    def activate(self, enrolment_id: bytes, proof: bytes) -> bytes:
        """Send the EnrolmentProof; return the EnrolmentResult."""
        return self._exchange(f"/v1/enrolments/{enrolment_id.hex()}/activation", proof)

    def open_session(self, request: bytes) -> bytes:
        """Send a SessionRequest; return the SessionOffer."""
        return self._exchange("/v1/sessions", request)

    def send_evidence(self, session_id: bytes, evidence: bytes) -> bytes:
        """Send Evidence; return the AttestResult."""
        return self._exchange(f"/v1/sessions/{session_id.hex()}/evidence", evidence)

    def deploy(self, session_id: bytes, record: bytes) -> AbstractContextManager[Iterator[bytes]]:
        """Send a DeployRequest's record; give the record stream in raw pieces of at most 64 KiB."""
        path = f"/v1/sessions/{session_id.hex()}/deployments"
        return self.stream(Call("POST", path, MAX_STREAM_BYTES, OCTETS, record))

    def renewal_challenge(self, session_id: bytes, request: bytes) -> bytes:
        """Send a RenewalRequest; return the RenewalChallenge."""
        return self._exchange(f"/v1/sessions/{session_id.hex()}/renewal-challenges", request)

    def renew(self, session_id: bytes, evidence: bytes) -> bytes:
        """Send the renewal's Evidence; return the RenewalResult."""
        return self._exchange(f"/v1/sessions/{session_id.hex()}/renewals", evidence)

    def end_lease(self, session_id: bytes, message: bytes) -> None:
        """Send a LeaseEnd."""
        self._exchange(f"/v1/sessions/{session_id.hex()}/lease-ends", message)

    def events(self, session_id: bytes, request: bytes) -> AbstractContextManager[Iterator[bytes]]:
        """Send an EventsRequest; give the frames of `wire.events` in raw pieces, for a FrameReader.

        The SBS sends a keep-alive well within ``Timeouts.stream``; silence beyond it is TransportError.
        """
        path = f"/v1/sessions/{session_id.hex()}/events"
        return self.stream(Call("POST", path, MAX_EVENT_STREAM_BYTES, CBOR, request, answer_kind=OCTETS))
