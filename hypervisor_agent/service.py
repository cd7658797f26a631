"""The wiring: which parts make a running agent, and how it ends."""

from __future__ import annotations

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cafe_lib.client.connection import Timeouts
from cafe_lib.client.host import HostCalls
from cafe_lib.image.manifest import Manifest
from cafe_lib.wire.messages import Revocation
from hypervisor_agent.deploy import SbsDeployer
from hypervisor_agent.enclave.backend import Backend
from hypervisor_agent.enclave.channel import Channel
from hypervisor_agent.enclave.enclave import Enclave
from hypervisor_agent.enclave.gdbaddress import Gdb
from hypervisor_agent.enclave.process import SparePool
from hypervisor_agent.events import RevocationReader
from hypervisor_agent.guests.server import GuestServer, GuestSocket
from hypervisor_agent.host import AgentHost
from hypervisor_agent.plan import EnclavePlan
from hypervisor_agent.session import Attester, Identity, SessionKeeper
from hypervisor_agent.settings import Settings
from hypervisor_agent.state import StateDirectory
from hypervisor_agent.steps import Steps
from hypervisor_agent.tenancy import Member, Upkeep
from hypervisor_agent.tpm.esapi import EsapiTpm
from hypervisor_agent.trusted import BUILD_DEBUG, BUILD_PRODUCTION

MAX_THREADS = 128
"""Blocking work under way at a time: more than a busy host launches, so that renewals never queue."""
GIVE_BACK_SECONDS = 5.0
"""How long the agent's end may be held up by an SBS that does not answer."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    state: Path
    sockets: list[GuestSocket]
    backend: Backend
    allow_debug: bool = False
    gdb: Gdb | None = None
    """For debug builds in the emulator, which need ``allow_debug``."""


@dataclass(frozen=True, slots=True)
class PooledStarter:
    """Starts enclaves in processes of a pool; makes channels."""

    pool: SparePool
    debug_pool: SparePool | None = None
    """Of processes that serve gdb; no build but a debug build gets one."""

    def start(self, plan: EnclavePlan) -> Enclave:
        """See the port."""
        pool = self.debug_pool if plan.debug and self.debug_pool is not None else self.pool
        return Enclave.start(plan, pool)

    def channel(self, manifest: Manifest) -> Channel:
        """See the port."""
        return Channel(manifest.slot_count, manifest.slot_bytes, manifest.bulk_bytes)


class _Workers(ThreadPoolExecutor):
    """Threads that the event loop's end does not wait for: one may hang on an SBS that does not answer."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 -- as in the base
        """Take no more work."""
        super().shutdown(wait=False, cancel_futures=True)


async def serve(options: Options, settings: Settings, steps: Steps) -> None:
    """Run the agent until SIGTERM or SIGINT; every enclave has ended when it returns. Raises HostError."""
    state = StateDirectory(options.state)
    identity = Identity(state.enrolment(), state.host_key(), state.attestation_key())
    enrolment = identity.enrolment
    timeouts = Timeouts(answer=settings.http_seconds)
    pool = SparePool(options.backend)
    debug_pool = SparePool(options.backend.with_gdb(options.gdb)) if options.gdb else None
    loop = asyncio.get_running_loop()
    loop.set_default_executor(_Workers(MAX_THREADS, "cafe-work"))
    try:
        with HostCalls(enrolment.sbs_url, timeouts=timeouts, ca_file=settings.ca_file) as sbs:
            tpm = EsapiTpm(enrolment.tcti)
            await asyncio.to_thread(tpm.prepare, identity.ak)
            pool.refill()
            attester = Attester(identity, tpm, sbs, steps, settings.event_log)
            sessions = SessionKeeper(attester)
            modes = frozenset({BUILD_PRODUCTION} | ({BUILD_DEBUG} if options.allow_debug else set()))
            deployer = SbsDeployer(sbs, attester, sessions, steps, modes)
            host = AgentHost(deployer, PooledStarter(pool, debug_pool), _upkeep(settings, options), steps)

            def deliver(revocation: Revocation) -> None:
                loop.call_soon_threadsafe(host.revoke, revocation)

            reader = RevocationReader(sbs, sessions, deliver)
            await _run(GuestServer(options.sockets, host), host, reader, steps)
    finally:
        for one in (pool, debug_pool):
            if one is not None:
                await asyncio.to_thread(one.close)


async def _run(server: GuestServer[Member], host: AgentHost, reader: RevocationReader, steps: Steps) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    server.listen()
    tasks = [asyncio.ensure_future(work) for work in (server.serve(), host.keep_leases(), stopping.wait())]
    reader.start()
    steps.event("ready")
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        reader.stop()
        for task in tasks:
            task.cancel()
        await asyncio.wait([*tasks, asyncio.ensure_future(host.close())], timeout=GIVE_BACK_SECONDS)
        server.close()
        steps.event("stopped")


def _upkeep(settings: Settings, options: Options) -> Upkeep:
    """No spare stands by where gdb is served: there is one address for the enclave that runs."""
    standby = settings.standby and options.gdb is None
    return Upkeep(settings.restarts, settings.restart_window_seconds, standby)
