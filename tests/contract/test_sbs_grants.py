"""The release decision: every check of it, and seats that are never sold twice."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

import httpx
import pytest
from image_samples import IDENTITY, image, manifest
from sbs_host import GOOD, SoftHost
from sbs_site import TENANT, VM, FakeClock, Site, opened, sealed_package
from sqlalchemy import update

from cafe_lib.errors import (
    BusyError,
    CafeError,
    ConflictError,
    DigestError,
    ForbiddenError,
    LicenceError,
    NotFoundError,
    PolicyError,
    SessionError,
    SignatureError,
)
from cafe_lib.wire import records
from cafe_lib.wire.messages import DeployRequest
from hypervisor_agent.trusted import TrustedSession, VerifiedGrant
from sbs_server.adapters.database import Database
from sbs_server.adapters.system import RateLimits
from sbs_server.adapters.tables import releases
from sbs_server.app import make_app, make_services
from sbs_server.services.releases import chunk_object, manifest_object, sealed_object
from sbs_server.settings import Settings

pytestmark = pytest.mark.anyio


# ------------------------------------------------------------------ seats


@pytest.mark.case("A37")
async def test_n_hosts_race_for_one_seat_less(site: Site) -> None:
    first, release_id = await site.ready(seats=7)
    hosts = [first]
    for number in range(2, 9):
        host = await site.enrol(SoftHost(f"host-{number}"))
        await site.register_vm(host, f"vm-{number}")
        hosts.append(host)
    sessions = [await site.attested(host) for host in hosts]
    vms = [VM, *(f"vm-{number}" for number in range(2, 9))]
    found = await asyncio.gather(
        *(site.launch(session, release_id, vm=vm) for session, vm in zip(sessions, vms, strict=True)),
        return_exceptions=True,
    )
    refused = [item for item in found if isinstance(item, BaseException)]
    assert [type(item) for item in refused] == [LicenceError]
    assert len({item[0].lease_id for item in found if not isinstance(item, BaseException)}) == 7


@pytest.mark.case("A37", "E02")
async def test_two_replicas_race_for_one_seat(site: Site) -> None:
    host, release_id = await site.ready(seats=1)
    sessions = [await site.attested(host) for _ in range(6)]
    other = Database(f"sqlite+aiosqlite:///{site.folder / 'sbs.sqlite3'}")
    transport = httpx.ASGITransport(make_app(make_services(replace(site.parts, store=other))))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://replica") as http:
            replica = replace(site, http=http)
            found = await asyncio.gather(
                *(
                    (site, replica)[index % 2].launch(session, release_id)
                    for index, session in enumerate(sessions)
                ),
                return_exceptions=True,
            )
    finally:
        await other.close()
    assert sorted(type(item).__name__ for item in found) == ["LicenceError"] * 5 + ["tuple"]


@pytest.mark.case("A37")
async def test_one_request_takes_one_seat_however_often_it_is_sent(site: Site) -> None:
    host, release_id = await site.ready(seats=2)
    sessions = [await site.attested(host) for _ in range(4)]
    found = await asyncio.gather(*(site.launch(session, release_id, b"r" * 16) for session in sessions))
    assert len({grant.lease_id for grant, _ in found}) == 1
    (licence,) = (await site.done("marketplace", "GET", "/v1/licences"))["items"]
    assert licence["seats_used"] == 1


@pytest.mark.case("A37")
async def test_the_database_itself_refuses_a_seat_twice(site: Site) -> None:
    host, release_id = await site.ready(seats=2)
    await site.launch(await site.attested(host), release_id)
    async with site.database.read() as tx:
        (lease,) = await tx.leases.find()
    for change in ({"seat": lease.seat}, {"seat": 3}, {"seat": 0}, {"seat": 3, "seats": 3}):
        forged = replace(lease, id=b"f" * 16, request_id=b"f" * 16, **change)
        with pytest.raises(ConflictError):
            async with site.database.write() as tx:
                await tx.leases.add(forged)


@pytest.mark.case("A37")
async def test_a_grant_never_says_more_than_its_lease(tmp_path_factory: pytest.TempPathFactory) -> None:
    class Ticking(FakeClock):
        """Moves on by a second whenever it is looked at."""

        def now(self) -> int:
            self.seconds += 1
            return self.seconds

    async with opened(tmp_path_factory.mktemp("sbs"), clock=Ticking()) as site:
        host, release_id = await site.ready(seats=1)
        grant, _ = await site.launch(await site.attested(host), release_id)
        assert grant.lease_seconds == site.parts.terms.lease_seconds


@pytest.mark.case("A37")
async def test_a_licence_that_expires_soon_gives_a_lease_as_short(site: Site) -> None:
    host, release_id = await site.ready(seats=0)
    await site.license(seats=1, seconds=7)
    session = await site.attested(host)
    assert (await site.launch(session, release_id))[0].lease_seconds == 7
    site.clock.seconds += 7
    for _ in range(2):
        with pytest.raises(LicenceError):
            await site.launch(session, release_id)
        site.clock.seconds += 11


async def test_a_request_id_is_good_for_one_vm_and_release(site: Site) -> None:
    host, release_id = await site.ready(seats=3)
    await site.register_vm(host, "web-2")
    other = await site.push(site.package(version="2"))
    session = await site.attested(host)
    await site.launch(session, release_id, b"r" * 16)
    for change in ({"vm": "web-2"}, {}):
        with pytest.raises(ConflictError):
            await site.launch(session, release_id if change else other, b"r" * 16, **change)


async def test_a_request_whose_lease_is_over_is_not_granted_again(site: Site) -> None:
    host, release_id = await site.ready(seats=3)
    session = await site.attested(host)
    grant, _ = await site.launch(session, release_id, b"r" * 16)
    path = f"sessions/{session.session_id.hex()}/lease-ends"
    await site.post(path, session.lease_end(grant.lease_id))
    with pytest.raises(LicenceError):
        await site.launch(session, release_id, b"r" * 16)


# ------------------------------------------------------------------ licences and tenants


@pytest.mark.case("E04")
async def test_the_licence_of_a_tenant_is_of_no_use_to_another(site: Site) -> None:
    host, release_id = await site.ready(seats=5)
    await site.register_vm(host, "initech-1", "initech")
    session = await site.attested(host)
    with pytest.raises(LicenceError):
        await site.launch(session, release_id, vm="initech-1")
    assert (await site.launch(session, release_id))[0].tenant == TENANT


async def test_the_licence_of_another_app_is_of_no_use(site: Site) -> None:
    host, _ = await site.ready(seats=5)
    other = await site.push(site.package(name="other", version="1"))
    with pytest.raises(LicenceError):
        await site.launch(await site.attested(host), other)


async def test_a_licence_needs_a_known_publisher_and_vm_and_time_left(site: Site) -> None:
    await site.ready()
    body = {"app": "nobody/x", "tenant": "t", "seats": 1, "expires_at": "2100-01-01T00:00:00Z"}
    past = {"app": "acme/x", "expires_at": "2001-01-01T00:00:00Z"}
    lost_vm = {"app": "acme/x", "tenant": None, "vm_id": "lost"}
    for change, error in (({}, NotFoundError), (past, ConflictError), (lost_vm, NotFoundError)):
        with pytest.raises(error):
            await site.done("marketplace", "POST", "/v1/licences", body | change)


# ------------------------------------------------------------------ host, VM, release, policy


@pytest.mark.case("C04")
async def test_a_vm_of_another_host_is_refused(site: Site) -> None:
    _, release_id = await site.ready()
    other = await site.enrol(SoftHost("host-2"))
    session = await site.attested(other)
    for vm in (VM, "no-such-vm"):
        with pytest.raises(ForbiddenError):
            await site.launch(session, release_id, vm=vm)


async def test_a_removed_vm_is_refused(site: Site) -> None:
    host, release_id = await site.ready()
    session = await site.attested(host)
    await site.done("operator", "DELETE", f"/v1/vms/{VM}")
    with pytest.raises(ForbiddenError):
        await site.launch(session, release_id)


@pytest.mark.case("A35")
async def test_a_host_revoked_after_its_quote_is_refused(site: Site) -> None:
    host, release_id = await site.ready()
    session = await site.attested(host)
    await site.done("operator", "POST", f"/v1/hosts/{host.host_id.hex()}/revocation")
    with pytest.raises(PolicyError):
        await site.launch(session, release_id)


@pytest.mark.case("C05")
async def test_a_revoked_release_is_gone_for_good(site: Site) -> None:
    host, release_id = await site.ready(seats=4)
    session = await site.attested(host)
    await site.launch(session, release_id, b"r" * 16)
    newer = await site.push(site.package(version="2"))
    await site.done("acme", "POST", f"/v1/releases/{release_id.hex()}/revocation")
    for request_id in (b"r" * 16, b"s" * 16):
        with pytest.raises(NotFoundError):
            await site.launch(session, release_id, request_id)
    for package in (site.package(), site.package(stack_bytes=131072)):
        with pytest.raises(ConflictError):
            await site.push(package)
    await site.done("acme", "POST", f"/v1/releases/{release_id.hex()}/revocation")
    assert (await site.launch(session, newer))[0].release.endswith("@2")


async def test_an_unknown_release_is_refused(site: Site) -> None:
    host, _ = await site.ready()
    with pytest.raises(NotFoundError):
        await site.launch(await site.attested(host), b"?" * 32)


async def test_a_debug_release_needs_the_policys_word(site: Site) -> None:
    host, _ = await site.ready()
    debug = await site.push(site.package(version="2", build_mode=2))
    with pytest.raises(PolicyError):
        await site.launch(await site.attested(host), debug)
    await site.put_policy(2, allow_debug=True)
    assert (await site.launch(await site.attested(host), debug))[0].build_mode == 2


async def test_a_debug_release_relabelled_in_the_database_runs_nowhere(site: Site) -> None:
    """Whoever writes the SBS's database gets past its policy, not past the manifest that the agent checks."""
    host, _ = await site.ready()
    debug = await site.push(site.package(version="2", build_mode=2))
    async with site.database._write_engine.begin() as connection:
        await connection.execute(update(releases).where(releases.c.id == debug).values(build_mode=1))
    with pytest.raises(PolicyError, match="build mode"):
        await site.launch(await site.attested(host), debug)


async def test_a_new_policy_wants_a_new_session(site: Site) -> None:
    host, release_id = await site.ready()
    session = await site.attested(host)
    await site.put_policy(2, GOOD)
    with pytest.raises(SessionError):
        await site.launch(session, release_id)


async def test_an_old_quote_is_refused(site: Site) -> None:
    host, release_id = await site.ready()
    await site.put_policy(2, max_quote_age_seconds=60)
    session = await site.attested(host)
    site.clock.seconds += 61
    with pytest.raises(SessionError):
        await site.launch(session, release_id)


async def test_a_session_that_was_not_attested_gets_nothing(site: Site) -> None:
    host, release_id = await site.ready()
    session, _ = await site.offered(host)
    session._state = "accepted"
    with pytest.raises(SessionError):
        await site.launch(session, release_id)


# ------------------------------------------------------------------ records


def record(session: TrustedSession, release_id: bytes, number: int, session_id: bytes = b"") -> bytes:
    request = DeployRequest(
        hashlib.sha256(bytes([number])).digest()[:16], session_id or session.session_id, VM, release_id, ()
    )
    return records.encrypt_record(session.keys, number, request.encode())


async def test_a_record_number_is_good_for_one_record(site: Site) -> None:
    host, release_id = await site.ready(seats=3)
    session = await site.attested(host)
    path = f"sessions/{session.session_id.hex()}/deployments"
    first = record(session, release_id, 7)
    assert await site.post(path, first) != await site.post(path, first), "a retry has fresh keys"
    other = DeployRequest(b"o" * 16, session.session_id, VM, release_id, ())
    with pytest.raises(SessionError):
        await site.post(path, records.encrypt_record(session.keys, 7, other.encode()))


@pytest.mark.case("C04")
async def test_the_record_of_another_session_is_refused(site: Site) -> None:
    host, release_id = await site.ready()
    one, two = await site.attested(host), await site.attested(host)
    with pytest.raises(SignatureError):
        await site.post(f"sessions/{two.session_id.hex()}/deployments", record(one, release_id, 1))
    bad = record(two, release_id, 1, one.session_id)
    with pytest.raises(SessionError):
        await site.post(f"sessions/{two.session_id.hex()}/deployments", bad)


# ------------------------------------------------------------------ the store under it


async def test_whoever_can_write_the_store_cannot_swap_manifest_or_keys(site: Site) -> None:
    host, release_id = await site.ready(seats=2)
    other = await site.push(site.package(version="2"))
    session = await site.attested(host)
    blobs = site.parts.blobs
    for name, error in ((manifest_object, DigestError), (sealed_object, SignatureError)):
        good = await blobs.get(name(release_id))
        await blobs.put(name(release_id), await blobs.get(name(other)))
        with pytest.raises(error):
            await site.launch(session, release_id)
        await blobs.put(name(release_id), good)
    (licence,) = (await site.done("marketplace", "GET", "/v1/licences"))["items"]
    assert licence["seats_used"] == 0, "a grant that cannot be made takes no seat"
    await site.launch(session, release_id)


async def test_a_chunk_that_is_gone_cuts_the_stream(site: Site) -> None:
    host, release_id = await site.ready(seats=2)
    session = await site.attested(host)
    (name, *_) = manifest(bytes(image()))[0].chunk_names
    (site.folder / "blobs" / chunk_object(name)).unlink()
    with pytest.raises(Exception) as caught:  # noqa: PT011 -- what the transport makes of a cut connection
        await site.launch(session, release_id)
    assert not isinstance(caught.value, AssertionError | CafeError)


async def test_every_grant_is_one_record_and_so_is_every_refusal(site: Site) -> None:
    host, release_id = await site.ready(seats=1)
    session = await site.attested(host)
    grant, _ = await site.launch(session, release_id)
    assert isinstance(grant, VerifiedGrant)
    with pytest.raises(LicenceError):
        await site.launch(session, release_id)
    first, second = [item for item in await site.audit() if item["action"] == "deployment.grant"]
    assert (first["outcome"], first["lease_id"], first["vm_id"]) == ("allowed", grant.lease_id.hex(), VM)
    assert (first["actor"], first["tenant"]) == ("host host-1", TENANT)
    assert (second["outcome"], second["code"], second["lease_id"]) == ("refused", "licence", None)
    assert first["release_id"] == second["release_id"] == release_id.hex()


async def test_packages_of_one_publisher_share_equal_chunks(site: Site) -> None:
    await site.ready()
    before = sorted((site.folder / "blobs" / "chunks").rglob("*"))
    made, confidential, chunks = manifest(bytes(image()), IDENTITY)
    await site.push(sealed_package(site.keys, replace(made, version="2"), confidential, chunks))
    assert sorted((site.folder / "blobs" / "chunks").rglob("*")) == before


@pytest.mark.case("E03")
async def test_a_record_sent_again_and_again_is_slowed_down(site: Site) -> None:
    host, release_id = await site.ready()
    limiter = RateLimits(Settings().rates() | {"deployment": "3/minute"})
    transport = httpx.ASGITransport(make_app(make_services(replace(site.parts, limiter=limiter))))
    async with httpx.AsyncClient(transport=transport, base_url="http://sbs") as http:
        slow = replace(site, http=http)
        session = await slow.attested(host)
        path, data = f"sessions/{session.session_id.hex()}/deployments", record(session, release_id, 1)
        for _ in range(3):
            await slow.post(path, data)
        before = len(await slow.audit())
        with pytest.raises(BusyError):
            await slow.post(path, data)
        assert len(await slow.audit()) == before
