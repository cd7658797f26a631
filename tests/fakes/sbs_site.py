"""A whole SBS in this process, on SQLite and a folder: spoken to through its ASGI application."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from image_samples import IDENTITY, image, manifest
from sbs_host import GOOD, PCR, SoftHost

from cafe_lib.client.problems import error_from_answer
from cafe_lib.image.manifest import Manifest, secret_binary_id, sign_manifest
from cafe_lib.image.package import SEALED, encode_head
from cafe_lib.toolchain.keys import PublisherIdentity
from cafe_lib.wire.keys import seal_confidential
from hypervisor_agent.trusted import LaunchAsk, TrustedLaunch, TrustedSession, VerifiedGrant
from sbs_server.adapters.blobs import open_blobs
from sbs_server.adapters.database import Database
from sbs_server.adapters.keyfiles import KeyFiles, create_keys
from sbs_server.adapters.system import RateLimits, SystemRandom
from sbs_server.app import Parts, make_app, make_services
from sbs_server.domain.values import ADMIN, Terms
from sbs_server.services.events import LocalBell
from sbs_server.services.identities import NewIdentity
from sbs_server.settings import Settings

APP, TENANT, VM = "acme/sample", "globex", "web-1"
OCTETS = {"content-type": "application/octet-stream"}
_schema: list[bytes] = []


@dataclass
class FakeClock:
    """Stands still until it is moved."""

    seconds: int = field(default_factory=lambda: int(time.time()))

    def now(self) -> int:
        return self.seconds


@dataclass
class RecordedSteps:
    """Keeps the numbers of the steps reported."""

    numbers: list[int] = field(default_factory=list)

    def step(self, number: int, milliseconds: float) -> None:
        assert milliseconds >= 0
        self.numbers.append(number)


def sealed_package(
    keys: KeyFiles,
    made: Manifest,
    confidential: bytes,
    chunks: Iterable[bytes],
    identity: PublisherIdentity = IDENTITY,
) -> bytes:
    """Return a package of kind 2, signed by this publisher."""
    cose = sign_manifest(identity.signing_key, made)
    blob = seal_confidential(keys.release_key.public, secret_binary_id(cose), confidential)
    return encode_head(SEALED, cose, blob) + b"".join(chunks)


@dataclass
class Site:
    """The parts of the SBS that tests look into, a client, and an API key per role."""

    folder: Path
    parts: Parts
    http: httpx.AsyncClient
    database: Database
    clock: FakeClock
    steps: RecordedSteps
    keys: KeyFiles
    api_keys: dict[str, str] = field(default_factory=dict)

    # -------------------------------------------------------------- people

    async def ask(self, who: str | None, method: str, path: str, body: object = None) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.api_keys[who]}"} if who else {}
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        if content is not None and not isinstance(body, bytes):
            headers["content-type"] = "application/json"
        return await self.http.request(method, path, content=content, headers=headers)

    async def done(self, who: str | None, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 -- JSON
        """Ask, and return the JSON of the answer; raises what a refusal stands for."""
        answer = await self.ask(who, method, path, body)
        if answer.is_error:
            raise error_from_answer(answer.status_code, answer.content)
        return answer.json() if answer.content else None

    async def create(self, name: str, role: str, public_key: str | None = None) -> str:
        """Create an identity; its key is then known under its name."""
        body = {"name": name, "role": role, "public_key": public_key}
        made = await self.done("admin", "POST", "/v1/identities", body)
        self.api_keys[name] = made["api_key"]
        return str(made["id"])

    async def create_roles(self) -> None:
        await self.create("acme", "publisher", IDENTITY.public_key.hex())
        await self.create("marketplace", "marketplace")
        await self.create("operator", "operator")

    async def put_policy(self, version: int = 1, value: bytes = GOOD, **more: object) -> None:
        pcrs = {"agent": {"alg": "sha256", "index": PCR, "values": [value.hex()]}}
        await self.done("operator", "PUT", "/v1/policy", {"version": version, "pcrs": pcrs, **more})

    async def license(self, seats: int = 1, seconds: int = 86400, **holder: str) -> str:
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.clock.now() + seconds))
        body = {"app": APP, "seats": seats, "expires_at": expires, **(holder or {"tenant": TENANT})}
        return str((await self.done("marketplace", "POST", "/v1/licences", body))["id"])

    async def register_vm(self, host: SoftHost, vm: str = VM, tenant: str = TENANT) -> None:
        body = {"vm_id": vm, "host_id": host.host_id.hex(), "tenant": tenant}
        await self.done("operator", "POST", "/v1/vms", body)

    def package(self, plain: bytes | None = None, **changes: object) -> bytes:
        """Return a package that may be pushed, with some fields of its manifest changed."""
        made, confidential, chunks = manifest(plain or bytes(image()))
        fields = {name: getattr(made, name) for name in Manifest.__dataclass_fields__}
        return sealed_package(self.keys, Manifest(**(fields | changes)), confidential, chunks)

    async def push(self, package: bytes | None = None, who: str = "acme") -> bytes:
        """Push; return the release's id."""
        made = await self.done(who, "POST", "/v1/releases", self.package() if package is None else package)
        return bytes.fromhex(made["id"])

    async def audit(self) -> list[dict[str, Any]]:
        found = await self.done("admin", "GET", "/v1/audit?limit=500")
        return list(found["items"])

    # -------------------------------------------------------------- hosts

    async def post(self, path: str, body: bytes) -> bytes:
        answer = await self.http.post(f"/v1/{path}", content=body, headers=OCTETS)
        if answer.is_error:
            raise error_from_answer(answer.status_code, answer.content)
        return answer.content

    async def enrol(self, host: SoftHost, *, approve: bool = True) -> SoftHost:
        if approve:
            body = {"name": host.name, "ek_digest": host.tpm.ek_digest.hex()}
            await self.done("operator", "POST", "/v1/approvals", body)
        request = host.enrolment_request()
        challenge = await self.post("enrolments", request)
        enrolment_id, proof, secret = host.prove(request, challenge)
        host.accept(secret, await self.post(f"enrolments/{enrolment_id.hex()}/activation", proof))
        return host

    async def offered(self, host: SoftHost) -> tuple[TrustedSession, bytes]:
        """Open a session; return it and the evidence that fits."""
        request, kem = host.session_request()
        session = host.trusted(request, kem)
        ask = session.accept_offer(await self.post("sessions", request), self.clock.now())
        return session, host.evidence(session, ask)

    async def attested(self, host: SoftHost) -> TrustedSession:
        session, evidence = await self.offered(host)
        session.accept_result(await self.post(f"sessions/{session.session_id.hex()}/evidence", evidence))
        return session

    async def launch(
        self, session: TrustedSession, release_id: bytes, request_id: bytes | None = None, vm: str = VM
    ) -> tuple[VerifiedGrant, list[bytes]]:
        """Deploy; return the grant and the chunks, verified as the agent does."""
        ask = LaunchAsk(
            request_id or self.parts.random.take(16), vm, release_id, build_modes=frozenset({1, 2})
        )
        launch = session.launch(ask)
        return await self.receive(session, launch)

    async def receive(
        self, session: TrustedSession, launch: TrustedLaunch
    ) -> tuple[VerifiedGrant, list[bytes]]:
        stream = await self.post(f"sessions/{session.session_id.hex()}/deployments", launch.record)
        chunks = [
            bytes(item.ciphertext) for item in launch.feed(stream) if not isinstance(item, VerifiedGrant)
        ]
        return launch.finish(), chunks

    async def ready(self, seats: int = 1) -> tuple[SoftHost, bytes]:
        """Prepare everything up to a session: roles, policy, release, host, VM, licence."""
        await self.create_roles()
        await self.put_policy()
        release_id = await self.push()
        host = await self.enrol(SoftHost("host-1"))
        await self.register_vm(host)
        if seats:
            await self.license(seats)
        return host, release_id


async def _new_database(path: Path) -> Database:
    """Migrate once for all tests of this process, then copy."""
    if not _schema:
        with tempfile.TemporaryDirectory() as folder:
            first = Database(f"sqlite+aiosqlite:///{folder}/empty")
            await first.migrate(Settings().migrations)
            await first.close()
            _schema.append(await asyncio.to_thread(Path(folder, "empty").read_bytes))
    await asyncio.to_thread(path.write_bytes, _schema[0])
    return Database(f"sqlite+aiosqlite:///{path}")


async def connections_ended() -> None:
    """Wait for the threads of connections that a cancelled transaction has given up: they answer the loop."""
    for _ in range(200):
        if not any("_connection_worker_thread" in thread.name for thread in threading.enumerate()):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("a connection of the database was left open")


@asynccontextmanager
async def opened(folder: Path, terms: Terms | None = None, **parts: object) -> AsyncIterator[Site]:
    """Open a site in a folder; `parts` replace those of the wiring."""
    clock, steps = FakeClock(), RecordedSteps()
    keys = create_keys(folder / "keys", clock.now())
    database = await _new_database(folder / "sbs.sqlite3")
    made = {
        "store": database,
        "blobs": open_blobs(str(folder / "blobs")),
        "keys": keys,
        "clock": clock,
        "random": SystemRandom(),
        "limiter": RateLimits(Settings().rates()),
        "steps": steps,
        "bell": LocalBell(0.2),
        "terms": terms or Terms(),
    }
    wired = Parts(**(made | parts))  # type: ignore[arg-type]  # names are checked by Parts
    services = make_services(wired)
    transport = httpx.ASGITransport(make_app(services), client=("127.0.0.1", 1))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://sbs") as http:
            admin = await services.identities.create("init", NewIdentity("admin", ADMIN))
            site = Site(folder, wired, http, database, clock, steps, keys, {"admin": admin.api_key})
            yield site
    finally:
        await database.close()
        await connections_ended()
        shutil.rmtree(folder / "blobs", ignore_errors=True)
