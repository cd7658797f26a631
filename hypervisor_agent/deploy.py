"""Deployment steps 9 to 11, loading steps 1 to 4: a release from the SBS, verified to its last byte, loaded.

No enclave is started here, and nothing reaches who could start one before the whole stream has been verified.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import structlog

from cafe_lib.errors import (
    BusyError,
    CafeError,
    ExitedError,
    InterfaceError,
    MalformedError,
    SessionError,
    TransportError,
)
from cafe_lib.wire import limits
from hypervisor_agent.leases import Clock, Lease, boottime
from hypervisor_agent.loader.load import ImageLoader
from hypervisor_agent.plan import EnclavePlan
from hypervisor_agent.release import Deployment, Order, Release
from hypervisor_agent.sbs import Sbs
from hypervisor_agent.session import AttestedSession, Attester, SessionKeeper
from hypervisor_agent.steps import Steps
from hypervisor_agent.trusted import BUILD_PRODUCTION, LaunchAsk, TrustedLaunch, VerifiedGrant

ATTEMPTS = 2
"""A lost connection, or a session the SBS has forgotten, is tried once more: same request, same seat."""

_log = structlog.get_logger()


@dataclass(slots=True)
class _Intake:
    """One stream on its way in: the loader it fills, and where the time goes (seconds)."""

    order: Order
    cancelled: threading.Event
    loader: ImageLoader | None = None
    grant: VerifiedGrant | None = None
    chunks: list[bytes] = field(default_factory=list)
    receiving: float = 0.0
    isolating: float = 0.0
    verifying: float = 0.0

    def take(self, launch: TrustedLaunch, stream: Iterator[bytes]) -> VerifiedGrant:
        """Take in the whole stream; return the grant once END has been verified."""
        mark = time.perf_counter()
        for data in stream:
            arrived = time.perf_counter()
            self.receiving += arrived - mark
            isolating = self.isolating
            if self.cancelled.is_set():
                raise ExitedError("the guest has gone")
            for piece in launch.feed(data):
                if isinstance(piece, VerifiedGrant):
                    self._isolate(piece)
                else:
                    self._decrypt(piece.index, bytes(piece.ciphertext))
            mark = time.perf_counter()
            self.verifying += mark - arrived - (self.isolating - isolating)
        return launch.finish()

    def _isolate(self, grant: VerifiedGrant) -> None:
        self.grant = grant
        manifest = grant.manifest.manifest
        if not hmac.compare_digest(manifest.interface_digest, self.order.interface_digest):
            raise InterfaceError(
                "the program was built against another interface than the release has",
                hint="rebuild the program from the released package",
            )
        start = time.perf_counter()
        self.loader = ImageLoader(manifest, grant.confidential)
        self.isolating = time.perf_counter() - start

    def _decrypt(self, index: int, ciphertext: bytes) -> None:
        if self.loader is None:
            raise MalformedError("a chunk before the grant")
        self.loader.take_chunk(index, ciphertext)
        self.chunks.append(ciphertext)

    def finish(self) -> EnclavePlan:
        """Relocate and seal."""
        if self.loader is None:
            raise MalformedError("the stream holds no grant")
        return self.loader.finish()

    def discard(self) -> None:
        """Wipe what was decrypted so far."""
        if self.loader is not None:
            self.loader.discard()


class SbsDeployer:
    """The agent's dealings with its SBS after enrolment. Every method blocks; for any thread."""

    def __init__(
        self,
        sbs: Sbs,
        attester: Attester,
        sessions: SessionKeeper,
        steps: Steps,
        build_modes: frozenset[int] = frozenset({BUILD_PRODUCTION}),
        clock: Clock = boottime,
    ) -> None:
        self._sbs = sbs
        self._attester = attester
        self._sessions = sessions
        self._steps = steps
        self._build_modes = build_modes
        self._clock = clock

    def deploy(self, order: Order, cancelled: threading.Event) -> Deployment:
        """Attest if need be, ask for the release, take it in, load it. Raises any CafeError.

        :raises InterfaceError: the guest's program belongs to another build of the release.
        :raises ExitedError: ``cancelled`` was set.
        """
        ask = LaunchAsk(
            secrets.token_bytes(limits.ID_BYTES),
            order.vm_id,
            order.secret_binary_id,
            build_modes=self._build_modes,
        )
        for attempt in range(1, ATTEMPTS + 1):
            session = self._sessions.get()
            try:
                return self._deploy(session, ask, order, cancelled)
            except (SessionError, TransportError) as error:
                if isinstance(error, SessionError):
                    self._sessions.reject(session)
                if attempt == ATTEMPTS or isinstance(error, BusyError):  # at once is too soon for a busy SBS
                    raise
                _log.info("deployment is tried again", code=error.code, detail=error.detail)
        raise AssertionError

    def renew(self) -> tuple[float, tuple[tuple[bytes, int], ...], tuple[bytes, ...]]:
        """Renew every lease of this host; return when it was asked, the new terms, and what has ended."""
        for attempt in range(1, ATTEMPTS + 1):
            session = self._sessions.current() or self._sessions.get()
            sent_at = self._clock()
            try:
                return sent_at, *self._attester.renew(session)
            except SessionError:
                self._sessions.reject(session)
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError

    def end_lease(self, lease_id: bytes) -> None:
        """Give a seat back; if the SBS cannot be reached, it frees the seat when the lease runs out.

        This needs a session that the SBS knows, not a young quote.
        """
        session = self._sessions.wait(0)
        if session is None:
            return
        try:
            try:
                self._end_lease_in(session, lease_id)
            except SessionError:
                self._sessions.reject(session)
                self._end_lease_in(self._sessions.get(), lease_id)
        except CafeError as error:
            _log.warning("lease not given back", code=error.code, detail=error.detail)

    def _end_lease_in(self, session: AttestedSession, lease_id: bytes) -> None:
        self._sbs.end_lease(session.trusted.session_id, session.trusted.lease_end(lease_id))

    def _deploy(
        self, session: AttestedSession, ask: LaunchAsk, order: Order, cancelled: threading.Event
    ) -> Deployment:
        intake = _Intake(order, cancelled)
        try:
            return self._load(session, session.trusted.launch(ask), intake)
        except BaseException as error:
            intake.discard()
            if intake.grant is not None and not isinstance(error, TransportError):
                self.end_lease(intake.grant.lease_id)
            raise

    def _load(self, session: AttestedSession, launch: TrustedLaunch, intake: _Intake) -> Deployment:
        sent_at = self._clock()
        self._steps.step("deployment", 9, 0)
        with self._sbs.deploy(session.trusted.session_id, launch.record) as stream:
            grant = intake.take(launch, stream)
        for step, seconds in ((1, intake.receiving), (2, intake.isolating), (3, intake.verifying)):
            self._steps.step("loading", step, seconds * 1000)
        lease = Lease(grant.lease_id, sent_at, grant.lease_seconds)
        with self._steps.timed("loading", 4):
            plan = intake.finish()
        manifest = grant.manifest.manifest
        release = Release(
            intake.order, grant.release, manifest, grant.confidential, tuple(intake.chunks), lease
        )
        return Deployment(release, plan)
