"""The whole protocol against a whole SBS, with the agent's own checks on the other side."""

from __future__ import annotations

import pytest
from image_samples import IDENTITY, image, manifest
from sbs_host import SoftHost
from sbs_site import APP, TENANT, VM, Site

from cafe_lib.errors import LicenceError, SessionError
from cafe_lib.wire.limits import CHUNK_BYTES

pytestmark = pytest.mark.anyio


async def test_from_enrolment_to_the_last_chunk(site: Site) -> None:
    host, release_id = await site.ready()
    session = await site.attested(host)
    grant, chunks = await site.launch(session, release_id)
    assert (grant.tenant, grant.release, grant.lease_seconds) == (TENANT, f"{APP}@1.2.3", 300)
    assert grant.manifest.secret_binary_id == release_id
    assert chunks == manifest(bytes(image()))[2]
    assert site.steps.numbers == [4, 7, 8, 10, 11]


async def test_a_release_of_many_chunks_comes_in_order(site: Site) -> None:
    host, _ = await site.ready()
    plain = bytes(range(256)) * (37 * CHUNK_BYTES // 256) + b"a short last one"
    plain = plain.ljust(-(-len(plain) // 4096) * 4096, b"\0")
    release_id = await site.push(site.package(plain, version="2"))
    _, chunks = await site.launch(await site.attested(host), release_id)
    assert chunks == manifest(plain)[2]


async def test_one_session_serves_many_launches(site: Site) -> None:
    host, release_id = await site.ready(seats=3)
    session = await site.attested(host)
    leases = {(await site.launch(session, release_id))[0].lease_id for _ in range(3)}
    assert len(leases) == 3
    with pytest.raises(LicenceError):
        await site.launch(session, release_id)


async def test_a_retry_gets_fresh_keys_and_the_same_seat(site: Site) -> None:
    host, release_id = await site.ready(seats=1)
    session = await site.attested(host)
    first, _ = await site.launch(session, release_id, b"r" * 16)
    site.clock.seconds += 10
    again, _ = await site.launch(await site.attested(host), release_id, b"r" * 16)
    assert again.lease_id == first.lease_id
    assert again.lease_seconds == first.lease_seconds - 10


async def test_a_renewal_extends_every_lease(site: Site) -> None:
    host, release_id = await site.ready(seats=2)
    session = await site.attested(host)
    leases = {(await site.launch(session, release_id))[0].lease_id for _ in range(2)}
    site.clock.seconds += 100
    path = f"sessions/{session.session_id.hex()}"
    ask = session.accept_challenge(await site.post(f"{path}/renewal-challenges", session.renewal_request()))
    result = session.accept_renewal(await site.post(f"{path}/renewals", host.evidence(session, ask)))
    assert dict(result.leases) == dict.fromkeys(leases, 300)
    assert result.ended == ()


async def test_a_lease_given_back_frees_its_seat(site: Site) -> None:
    host, release_id = await site.ready(seats=1)
    session = await site.attested(host)
    grant, _ = await site.launch(session, release_id)
    path = f"sessions/{session.session_id.hex()}/lease-ends"
    await site.post(path, session.lease_end(grant.lease_id))
    await site.post(path, session.lease_end(grant.lease_id))
    assert (await site.launch(session, release_id))[0].lease_id != grant.lease_id


async def test_a_lease_that_ran_out_frees_its_seat_after_the_margin(site: Site) -> None:
    host, release_id = await site.ready(seats=1)
    await site.launch(await site.attested(host), release_id)
    site.clock.seconds += 305
    session = await site.attested(host)
    with pytest.raises(LicenceError):
        await site.launch(session, release_id)
    site.clock.seconds += 5
    assert (await site.launch(session, release_id))[0].lease_seconds == 300


async def test_a_lease_ends_with_its_licence(site: Site) -> None:
    host, release_id = await site.ready(seats=0)
    await site.license(seconds=40)
    session = await site.attested(host)
    grant, _ = await site.launch(session, release_id)
    assert grant.lease_seconds == 40
    site.clock.seconds += 50
    with pytest.raises(LicenceError):
        await site.launch(session, release_id)


async def test_a_licence_of_a_vm_holds_for_that_vm_only(site: Site) -> None:
    host, release_id = await site.ready(seats=0)
    await site.register_vm(host, "web-2")
    await site.license(vm_id=VM)
    session = await site.attested(host)
    with pytest.raises(LicenceError):
        await site.launch(session, release_id, vm="web-2")
    assert (await site.launch(session, release_id))[0].tenant == TENANT


async def test_a_host_that_enrols_again_keeps_its_id_and_loses_its_sessions(site: Site) -> None:
    host, release_id = await site.ready()
    session = await site.attested(host)
    again = await site.enrol(SoftHost("host-1", host.tpm), approve=False)
    assert again.host_id == host.host_id
    with pytest.raises(SessionError):
        await site.launch(session, release_id)
    assert (await site.launch(await site.attested(again), release_id))[0].release == f"{APP}@1.2.3"


async def test_the_publisher_of_a_release_is_the_identity_that_pushed_it(site: Site) -> None:
    await site.ready()
    (release,) = (await site.done("acme", "GET", "/v1/releases"))["items"]
    assert (release["release"], release["build_mode"]) == (f"{APP}@1.2.3", "production")
    (identity,) = [
        item
        for item in (await site.done("admin", "GET", "/v1/identities"))["items"]
        if item["name"] == "acme"
    ]
    assert identity["public_key"] == IDENTITY.public_key.hex()
