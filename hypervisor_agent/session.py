"""Attested sessions (deployment steps 3 to 8): opened once, one serves many launches of this host."""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cafe_lib.wire import limits
from cafe_lib.wire.keys import KemKeyPair
from cafe_lib.wire.messages import SUITES, SessionRequest
from hypervisor_agent.leases import Clock, boottime
from hypervisor_agent.sbs import Sbs
from hypervisor_agent.state import Enrolment
from hypervisor_agent.steps import Steps
from hypervisor_agent.tpm.eventlog import read_event_log
from hypervisor_agent.tpm.port import AttestationKey, PcrValues, Tpm
from hypervisor_agent.trusted import QuoteAsk, TrustedSession


@dataclass(frozen=True, slots=True)
class Identity:
    """What enrolment left: who this host is, and the keys that show it."""

    enrolment: Enrolment
    host_key: Ed25519PrivateKey = field(repr=False)
    ak: AttestationKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class AttestedSession:
    """A session the SBS has accepted."""

    trusted: TrustedSession
    pcr_values: PcrValues
    """What was quoted."""
    usable_until: float
    """On the agent's clock: then the session, or its quote, is too old for a grant."""


class Attester:
    """Opens and renews sessions. Blocks: TPM and network."""

    def __init__(self, identity: Identity, tpm: Tpm, sbs: Sbs, steps: Steps, event_log: Path | None) -> None:
        self._identity = identity
        self._tpm = tpm
        self._sbs = sbs
        self._steps = steps
        self._event_log = event_log

    def open(self, clock: Clock) -> AttestedSession:
        """Agree on keys, show the evidence, take the verdict (steps 3 to 8).

        :raises VerificationError: the SBS is not the pinned one, or it refuses the evidence.
        :raises PolicyError: its policy refuses this host.
        :raises TransportError: it cannot be reached.
        :raises TpmError: the TPM fails.
        """
        sent_at = clock()
        with self._steps.timed("deployment", 3):
            trusted, ask = self._agree()
        with self._steps.timed("deployment", 5):
            quote = self._tpm.quote(self._identity.ak, ask.qualifying_data, ask.selection)
        quoted_at = clock()
        with self._steps.timed("deployment", 6):
            log = read_event_log(self._event_log)
            evidence = trusted.seal_evidence(quote.attest, quote.signature, quote.pcr_values, log)
        result = trusted.accept_result(self._sbs.send_evidence(trusted.session_id, evidence))
        until = min(sent_at + trusted.expires_in, quoted_at + result.valid_seconds)
        return AttestedSession(trusted, quote.pcr_values, until)

    def renew(self, session: AttestedSession) -> tuple[tuple[tuple[bytes, int], ...], tuple[bytes, ...]]:
        """Quote a fresh nonce; return the leases renewed and those that ended. Raises as :meth:`open`."""
        trusted = session.trusted
        challenge = self._sbs.renewal_challenge(trusted.session_id, trusted.renewal_request())
        ask = trusted.accept_challenge(challenge)
        quote = self._tpm.quote(self._identity.ak, ask.qualifying_data, ask.selection)
        log = read_event_log(self._event_log)
        evidence = trusted.seal_evidence(quote.attest, quote.signature, quote.pcr_values, log)
        result = trusted.accept_renewal(self._sbs.renew(trusted.session_id, evidence))
        return result.leases, result.ended

    def still_true(self, session: AttestedSession) -> bool:
        """Tell whether the PCRs still are what the session's quote said."""
        return self._tpm.read_pcrs(session.trusted.selection) == session.pcr_values

    def _agree(self) -> tuple[TrustedSession, QuoteAsk]:
        enrolment, kem = self._identity.enrolment, KemKeyPair.generate()
        nonce = secrets.token_bytes(limits.NONCE_BYTES)
        request = SessionRequest(enrolment.host_id, kem.public, nonce, SUITES).sign(self._identity.host_key)
        trusted = TrustedSession(enrolment.host_id, enrolment.sbs_root, request, kem)
        return trusted, trusted.accept_offer(self._sbs.open_session(request), int(time.time()))


class SessionKeeper:
    """The present session, re-made when it is too old, rejected, or no longer true. For any thread."""

    def __init__(self, attester: Attester, clock: Clock = boottime) -> None:
        self._attester = attester
        self._clock = clock
        self._opening = threading.Lock()
        self._changed = threading.Condition()
        self._session: AttestedSession | None = None

    def get(self) -> AttestedSession:
        """Return a session good for a grant now; raises as :meth:`Attester.open`."""
        with self._opening:
            session = self.current()
            if session is None or not self._attester.still_true(session):
                session = self._attester.open(self._clock)
                with self._changed:
                    self._session = session
                    self._changed.notify_all()
            return session

    def current(self) -> AttestedSession | None:
        """Return the present session unless it is too old."""
        session = self._session
        return session if session is not None and self._clock() < session.usable_until else None

    def wait(self, seconds: float) -> AttestedSession | None:
        """Return the latest session, of any age, as soon as there is one; None after ``seconds``."""
        with self._changed:
            self._changed.wait_for(lambda: self._session is not None, seconds)
            return self._session

    def reject(self, session: AttestedSession) -> None:
        """Say that the SBS does not know this session."""
        with self._changed:
            if self._session is session:
                self._session = None
