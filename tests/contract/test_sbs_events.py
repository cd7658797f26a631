"""Renewal and revocation: what a host is told, and what ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
from sbs_host import GOOD, PCR, SoftHost
from sbs_site import VM, Site, opened

from cafe_lib.errors import (
    BusyError,
    LicenceError,
    MalformedError,
    NotFoundError,
    PolicyError,
    QuoteError,
    SessionError,
    SignatureError,
)
from cafe_lib.wire.events import FrameReader
from cafe_lib.wire.messages import RenewalChallenge, RenewalResult, Revocation
from hypervisor_agent.trusted import LaunchAsk, TrustedSession
from sbs_server.api.context import Services
from sbs_server.app import make_app, make_services
from sbs_server.domain.values import Terms

pytestmark = pytest.mark.anyio


class Listener:
    """Follows the events of a session as the agent does."""

    def __init__(self, session: TrustedSession, stream: AsyncIterator[bytes], after: int = 0) -> None:
        self.session, self.stream, self.after = session, stream, after
        self._reader = FrameReader()

    async def next(self) -> Revocation:
        async with asyncio.timeout(5):
            async for data in self.stream:
                for message in self._reader.feed(data):
                    revocation = self.session.accept_revocation(message, self.after)
                    self.after = revocation.number
                    return revocation
        raise AssertionError("the stream ended")


async def follow(services: Services, session: TrustedSession, after: int = 0) -> Listener:
    stream = await services.events.follow(session.session_id, session.events_request(after))
    return Listener(session, stream, after)


async def revoke(site: Site, kind: str, release_id: bytes, host: SoftHost) -> None:
    (licence,) = (await site.done("marketplace", "GET", "/v1/licences"))["items"]
    who, method, path = {
        "licence": ("marketplace", "POST", f"/v1/licences/{licence['id']}/revocation"),
        "release": ("acme", "POST", f"/v1/releases/{release_id.hex()}/revocation"),
        "host": ("operator", "POST", f"/v1/hosts/{host.host_id.hex()}/revocation"),
        "lease": ("operator", "DELETE", f"/v1/vms/{VM}"),
    }[kind]
    await site.done(who, method, path)


@pytest.mark.parametrize("kind", ["licence", "release", "host", "lease"])
async def test_a_revocation_reaches_who_listens(site: Site, kind: str) -> None:
    host, release_id = await site.ready(seats=2)
    services = make_services(site.parts)
    session = await site.attested(host)
    leases = {(await site.launch(session, release_id))[0].lease_id for _ in range(2)}
    listener = await follow(services, session)
    waiting = asyncio.create_task(listener.next())
    await asyncio.sleep(0.05)
    await revoke(site, kind, release_id, host)
    event = await waiting
    assert (event.number, event.kind, set(event.lease_ids)) == (1, kind, leases)
    assert event.secret_binary_id == (release_id if kind == "release" else b"")
    await listener.stream.aclose()


async def test_what_was_missed_comes_first_and_only_once(site: Site) -> None:
    host, release_id = await site.ready(seats=2)
    services = make_services(site.parts)
    session = await site.attested(host)
    await site.launch(session, release_id)
    await revoke(site, "release", release_id, host)
    await revoke(site, "host", release_id, host)
    listener = await follow(services, session)
    assert [(await listener.next()).kind for _ in range(2)] == ["release", "host"]
    await listener.stream.aclose()
    again = await follow(services, session, after=1)
    assert (await again.next()).number == 2
    await again.stream.aclose()


async def test_a_host_is_not_told_of_others(site: Site) -> None:
    host, release_id = await site.ready(seats=2)
    other = await site.enrol(SoftHost("host-2"))
    services = make_services(site.parts)
    session = await site.attested(other)
    await site.launch(await site.attested(host), release_id)
    await revoke(site, "release", release_id, host)
    await site.done("operator", "POST", f"/v1/hosts/{other.host_id.hex()}/revocation")
    listener = await follow(services, session)
    event = await listener.next()
    assert (event.kind, event.host_id, event.lease_ids) == ("host", other.host_id, ())
    await listener.stream.aclose()


async def test_a_stream_ends_with_its_session_and_with_the_server(site: Site) -> None:
    host, _ = await site.ready()
    services = make_services(site.parts)
    streams = [(await follow(services, await site.attested(host))).stream for _ in range(2)]
    assert [await anext(stream) for stream in streams] == [b"\0\0\0\0"] * 2
    site.clock.seconds += 3600
    async with asyncio.timeout(5):
        assert [frame async for frame in streams[0]] in ([], [b"\0\0\0\0"])
        site.clock.seconds -= 3600
        site.parts.bell.close()
        assert [frame async for frame in streams[1]] in ([], [b"\0\0\0\0"])


@pytest.mark.case("E03")
async def test_streams_are_bounded_for_each_host(site: Site) -> None:
    host, _ = await site.ready()
    services = make_services(site.parts)
    session = await site.attested(host)
    listeners = [await follow(services, session) for _ in range(8)]
    for listener in listeners:
        await anext(listener.stream)
    with pytest.raises(BusyError):
        await follow(services, session)
    await listeners[0].stream.aclose()
    await (await follow(services, session)).stream.aclose()
    for listener in listeners[1:]:
        await listener.stream.aclose()


async def test_only_the_host_itself_follows(site: Site) -> None:
    host, _ = await site.ready()
    services = make_services(site.parts)
    one, two = await site.attested(host), await site.attested(host)
    with pytest.raises(SignatureError):
        await services.events.follow(one.session_id, two.events_request(0))
    with pytest.raises(SessionError):
        await services.events.follow(b"?" * 16, one.events_request(0))


async def test_a_revoked_lease_keeps_its_seat_until_it_is_given_back(site: Site) -> None:
    host, release_id = await site.ready(seats=1)
    session = await site.attested(host)
    newer = await site.push(site.package(version="2"))
    grant, _ = await site.launch(session, release_id)
    await revoke(site, "release", release_id, host)
    with pytest.raises(LicenceError):
        await site.launch(session, newer)
    path = f"sessions/{session.session_id.hex()}/lease-ends"
    await site.post(path, session.lease_end(grant.lease_id))
    await site.launch(session, newer)


# ------------------------------------------------------------------ renewal


async def renew(site: Site, host: SoftHost, session: TrustedSession) -> RenewalResult:
    path = f"sessions/{session.session_id.hex()}"
    ask = session.accept_challenge(await site.post(f"{path}/renewal-challenges", session.renewal_request()))
    return session.accept_renewal(await site.post(f"{path}/renewals", host.evidence(session, ask)))


async def test_a_renewal_tells_what_has_ended(site: Site) -> None:
    host, release_id = await site.ready(seats=3)
    session = await site.attested(host)
    old, _ = await site.launch(session, release_id)
    given_back, _ = await site.launch(session, release_id)
    await site.post(f"sessions/{session.session_id.hex()}/lease-ends", session.lease_end(given_back.lease_id))
    site.clock.seconds += 290
    young, _ = await site.launch(session, release_id)
    site.clock.seconds += 20
    result = await renew(site, host, session)
    assert [lease_id for lease_id, _ in result.leases] == [young.lease_id]
    assert result.ended == (old.lease_id,)


async def test_a_renewal_from_a_newer_session_renews_the_leases_of_older_ones(site: Site) -> None:
    host, release_id = await site.ready(seats=1)
    grant, _ = await site.launch(await site.attested(host), release_id)
    site.clock.seconds += 100
    result = await renew(site, host, await site.attested(host))
    assert result.leases == ((grant.lease_id, 300),)


@pytest.mark.case("A19")
async def test_a_renewal_nonce_is_good_once(site: Site) -> None:
    host, release_id = await site.ready(seats=1)
    session = await site.attested(host)
    await site.launch(session, release_id)
    path = f"sessions/{session.session_id.hex()}"
    request = session.renewal_request()
    ask = session.accept_challenge(await site.post(f"{path}/renewal-challenges", request))
    evidence = host.evidence(session, ask)
    await site.post(f"{path}/renewals", evidence)
    with pytest.raises(SessionError):
        await site.post(f"{path}/renewals", evidence)
    with pytest.raises(SessionError):
        await site.post(f"{path}/renewal-challenges", request)
    fresh = session.accept_challenge(await site.post(f"{path}/renewal-challenges", session.renewal_request()))
    assert fresh.qualifying_data != ask.qualifying_data
    with pytest.raises(QuoteError):
        await site.post(f"{path}/renewals", evidence)
    site.clock.seconds += 120
    with pytest.raises(SessionError):
        await site.post(f"{path}/renewals", host.evidence(session, fresh))


@pytest.mark.case("A19")
async def test_a_renewal_nonce_is_used_up_by_evidence_that_fails(site: Site) -> None:
    host, release_id = await site.ready(seats=1)
    session = await site.attested(host)
    await site.launch(session, release_id)
    path = f"sessions/{session.session_id.hex()}"
    ask = session.accept_challenge(await site.post(f"{path}/renewal-challenges", session.renewal_request()))
    host.tpm.pcrs[PCR] = b"e" * 32
    with pytest.raises(PolicyError):
        await site.post(f"{path}/renewals", host.evidence(session, ask))
    host.tpm.pcrs[PCR] = GOOD
    with pytest.raises(SessionError):
        await site.post(f"{path}/renewals", host.evidence(session, ask))
    assert (await renew(site, host, session)).leases, "a fresh nonce is another chance"


@pytest.mark.case("A20")
async def test_nonces_of_renewals_never_repeat(site: Site) -> None:
    host, _ = await site.ready()
    nonces = []
    for _ in range(3):
        session = await site.attested(host)
        path = f"sessions/{session.session_id.hex()}/renewal-challenges"
        for number in range(1, 21):
            answer = await site.post(path, session.renewal_request())
            challenge = RenewalChallenge.open(session.keys.server_mac, answer)
            assert challenge.number == number
            nonces.append(challenge.nonce)
    assert len(set(nonces)) == len(nonces) == 60


@pytest.mark.case("A19")
async def test_a_stranger_cannot_use_up_a_renewal_nonce(site: Site) -> None:
    host, _ = await site.ready(seats=1)
    session, other = await site.attested(host), await site.attested(host)
    path = f"sessions/{session.session_id.hex()}"
    ask = session.accept_challenge(await site.post(f"{path}/renewal-challenges", session.renewal_request()))
    for bad in (b"\xa0", host.evidence(other, ask)):
        with pytest.raises((MalformedError, SignatureError)):
            await site.post(f"{path}/renewals", bad)
    assert session.accept_renewal(await site.post(f"{path}/renewals", host.evidence(session, ask)))


async def test_what_a_host_asks_is_recorded_as_its_own(site: Site) -> None:
    host, release_id = await site.ready(seats=1)
    session = await site.attested(host)
    grant, _ = await site.launch(session, release_id)
    await renew(site, host, session)
    path = f"sessions/{session.session_id.hex()}/lease-ends"
    await site.post(path, session.lease_end(grant.lease_id))
    with pytest.raises(NotFoundError):
        await site.post(path, session.lease_end(b"?" * 16))
    with pytest.raises(SignatureError):
        await site.post(path, (await site.attested(host)).lease_end(grant.lease_id))
    found = [
        (item["action"], item["outcome"], item["actor"])
        for item in await site.audit()
        if item["action"] in {"renewal.renew", "lease.end"}
    ]
    assert found == [
        ("renewal.renew", "allowed", "host host-1"),
        ("lease.end", "allowed", "host host-1"),
        ("lease.end", "refused", "host host-1"),
        ("lease.end", "refused", "nobody"),
    ]


async def test_the_lease_of_a_debug_release_ends_with_the_policys_word(site: Site) -> None:
    host, release_id = await site.ready(seats=2)
    debug = await site.push(site.package(version="2", build_mode=2))
    await site.put_policy(2, allow_debug=True)
    session = await site.attested(host)
    grants = [(await site.launch(session, wanted))[0].lease_id for wanted in (debug, release_id)]
    assert {lease_id for lease_id, _ in (await renew(site, host, session)).leases} == set(grants)
    await site.put_policy(3)
    result = await renew(site, host, await site.attested(host))
    assert [lease_id for lease_id, _ in result.leases] == grants[1:]


@pytest.mark.case("A37")
async def test_shorter_terms_do_not_free_a_seat_that_was_granted_for_longer(site: Site) -> None:
    host, release_id = await site.ready(seats=1)
    grant, _ = await site.launch(await site.attested(host), release_id)
    site.clock.seconds += 100
    shorter = make_app(make_services(replace(site.parts, terms=Terms(lease_seconds=60))))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(shorter), base_url="http://sbs") as http:
        again = replace(site, http=http)
        session = await again.attested(host)
        assert (await renew(again, host, session)).leases == ((grant.lease_id, 200),)
        again.clock.seconds += 190
        with pytest.raises(LicenceError):
            await again.launch(session, release_id)


async def test_the_evidence_of_the_session_does_not_renew(site: Site) -> None:
    host, _ = await site.ready()
    session, evidence = await site.offered(host)
    path = f"sessions/{session.session_id.hex()}"
    session.accept_result(await site.post(f"{path}/evidence", evidence))
    await site.post(f"{path}/renewal-challenges", session.renewal_request())
    with pytest.raises(QuoteError):
        await site.post(f"{path}/renewals", evidence)


@pytest.mark.case("A35")
@pytest.mark.parametrize("change", ["measurement", "revoked", "policy"])
async def test_a_host_that_is_no_longer_good_is_not_renewed(site: Site, change: str) -> None:
    host, release_id = await site.ready(seats=1)
    session = await site.attested(host)
    await site.launch(session, release_id)
    if change == "measurement":
        host.tpm.pcrs[PCR] = b"e" * 32
    elif change == "revoked":
        await revoke(site, "host", release_id, host)
    else:
        await site.put_policy(2)
    with pytest.raises((PolicyError, SessionError)):
        await renew(site, host, session)
    (licence,) = (await site.done("marketplace", "GET", "/v1/licences"))["items"]
    assert licence["seats_used"] == 1
    site.clock.seconds += 310
    (licence,) = (await site.done("marketplace", "GET", "/v1/licences"))["items"]
    assert licence["seats_used"] == 0


@pytest.mark.case("A37")
async def test_a_lease_is_not_renewed_beyond_its_licence(site: Site) -> None:
    host, release_id = await site.ready(seats=0)
    await site.license(seconds=350)
    session = await site.attested(host)
    grant, _ = await site.launch(session, release_id)
    site.clock.seconds += 200
    assert (await renew(site, host, session)).leases == ((grant.lease_id, 150),)
    site.clock.seconds += 155
    assert (await renew(site, host, session)).leases == ()


@pytest.mark.case("E04")
async def test_a_host_ends_only_its_own_leases(site: Site) -> None:
    host, release_id = await site.ready(seats=1)
    other = await site.enrol(SoftHost("host-2"))
    grant, _ = await site.launch(await site.attested(host), release_id)
    session = await site.attested(other)
    for lease_id in (grant.lease_id, b"?" * 16):
        with pytest.raises(NotFoundError):
            await site.post(f"sessions/{session.session_id.hex()}/lease-ends", session.lease_end(lease_id))
    (licence,) = (await site.done("marketplace", "GET", "/v1/licences"))["items"]
    assert licence["seats_used"] == 1


@pytest.mark.case("E03")
async def test_leases_and_records_are_bounded(tmp_path_factory: pytest.TempPathFactory) -> None:
    terms = Terms(max_leases_per_host=2, max_records_per_session=4)
    async with opened(tmp_path_factory.mktemp("sbs"), terms) as site:
        host, release_id = await site.ready(seats=9)
        session = await site.attested(host)
        for _ in range(2):
            await site.launch(session, release_id)
        answer = await site.http.post(
            f"/v1/sessions/{session.session_id.hex()}/deployments",
            content=session.launch(LaunchAsk(b"i" * 16, VM, release_id)).record,
        )
        assert answer.json()["code"] == "limit"
        site.clock.seconds += 400
        for _ in range(2):
            await site.launch(session, release_id)
        with pytest.raises(SessionError):
            await site.launch(session, release_id)
