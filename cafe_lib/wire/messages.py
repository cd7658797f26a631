"""Every message of the protocol under one name; the definitions are in the file of their phase."""

from __future__ import annotations

from cafe_lib.wire.deploy import DeployRequest, Grant, LeaseEnd
from cafe_lib.wire.enrolment import EnrolmentChallenge, EnrolmentProof, EnrolmentRequest, EnrolmentResult
from cafe_lib.wire.envelope import (
    MacMessage,
    SignedMessage,
    open_mac,
    seal_mac,
    sign_message,
    verify_signed,
)
from cafe_lib.wire.events import EventsRequest, FrameReader, Revocation, encode_frame
from cafe_lib.wire.session import (
    STATUS_ACCEPTED,
    STATUS_REFUSED,
    SUITE_HYBRID,
    SUITES,
    AttestResult,
    Evidence,
    RenewalChallenge,
    RenewalRequest,
    RenewalResult,
    SessionOffer,
    SessionRequest,
    SigningCertificate,
    choose_suite,
    verify_certificate,
    verify_offer,
)

__all__ = [
    "STATUS_ACCEPTED",
    "STATUS_REFUSED",
    "SUITES",
    "SUITE_HYBRID",
    "AttestResult",
    "DeployRequest",
    "EnrolmentChallenge",
    "EnrolmentProof",
    "EnrolmentRequest",
    "EnrolmentResult",
    "EventsRequest",
    "Evidence",
    "FrameReader",
    "Grant",
    "LeaseEnd",
    "MacMessage",
    "RenewalChallenge",
    "RenewalRequest",
    "RenewalResult",
    "Revocation",
    "SessionOffer",
    "SessionRequest",
    "SignedMessage",
    "SigningCertificate",
    "choose_suite",
    "encode_frame",
    "open_mac",
    "seal_mac",
    "sign_message",
    "verify_certificate",
    "verify_offer",
    "verify_signed",
]
