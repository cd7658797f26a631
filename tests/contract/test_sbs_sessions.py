"""Sessions: each nonce is good for one answer, from one host, once; and only under a policy."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from sbs_host import PCR, SoftHost
from sbs_site import Site, opened

from cafe_lib.errors import (
    BusyError,
    CafeError,
    ConflictError,
    MalformedError,
    PolicyError,
    QuoteError,
    SessionError,
    SignatureError,
    VersionError,
)
from cafe_lib.wire import keys
from cafe_lib.wire.messages import SessionOffer, SessionRequest
from hypervisor_agent.trusted import QuoteAsk, TrustedSession
from sbs_server.domain.values import Terms

pytestmark = pytest.mark.anyio


@pytest.fixture
async def host(site: Site) -> SoftHost:
    await site.create_roles()
    await site.put_policy()
    return await site.enrol(SoftHost("host-1"))


async def show(site: Site, session: TrustedSession, evidence: bytes) -> None:
    """Send evidence and take the verdict, as the agent does."""
    session.accept_result(await site.post(f"sessions/{session.session_id.hex()}/evidence", evidence))


@pytest.mark.case("A19")
async def test_evidence_is_judged_once(site: Site, host: SoftHost) -> None:
    session, evidence = await site.offered(host)
    await show(site, session, evidence)
    with pytest.raises(SessionError):
        await site.post(f"sessions/{session.session_id.hex()}/evidence", evidence)


@pytest.mark.case("A19")
async def test_a_refused_session_gets_no_second_try(site: Site, host: SoftHost) -> None:
    request, kem = host.session_request()
    session = host.trusted(request, kem)
    ask = session.accept_offer(await site.post("sessions", request), site.clock.now())
    path = f"sessions/{session.session_id.hex()}/evidence"
    host.tpm.pcrs[PCR] = b"e" * 32
    with pytest.raises(PolicyError):
        session.accept_result(await site.post(path, host.evidence(session, ask)))
    with pytest.raises(SessionError):
        await site.post(path, b"\xa0")


@pytest.mark.case("A19")
async def test_a_nonce_in_the_end_is_too_old(site: Site, host: SoftHost) -> None:
    session, evidence = await site.offered(host)
    site.clock.seconds += 120
    with pytest.raises(SessionError):
        await show(site, session, evidence)


@pytest.mark.case("A19", "A24")
async def test_the_answer_to_another_nonce_is_refused(site: Site, host: SoftHost) -> None:
    old, _ = await site.offered(host)
    request, kem = host.session_request()
    session = host.trusted(request, kem)
    session.accept_offer(await site.post("sessions", request), site.clock.now())
    ask = QuoteAsk(keys.qualifying_data(old._transcript), session.selection)
    with pytest.raises(QuoteError):
        await show(site, session, host.evidence(session, ask))


@pytest.mark.case("A19", "A22")
async def test_the_message_of_another_session_is_refused(site: Site, host: SoftHost) -> None:
    first, evidence = await site.offered(host)
    second, _ = await site.offered(host)
    with pytest.raises(SignatureError):
        await site.post(f"sessions/{second.session_id.hex()}/evidence", evidence)
    await show(site, first, evidence)


@pytest.mark.case("A23")
async def test_the_quote_of_another_host_is_refused(site: Site, host: SoftHost) -> None:
    other = await site.enrol(SoftHost("host-2"))
    request, kem = host.session_request()
    session = host.trusted(request, kem)
    ask = session.accept_offer(await site.post("sessions", request), site.clock.now())
    with pytest.raises(QuoteError):
        await show(site, session, other.evidence(session, ask))


@pytest.mark.case("A20")
async def test_nonces_never_repeat(site: Site, host: SoftHost) -> None:
    nonces = set()
    for number in range(100):
        site.clock.seconds += 10  # offers end, so that the cap is not reached
        message = await site.post("sessions", host.session_request()[0])
        nonces.add(SessionOffer.read_unverified(message).sbs_nonce)
        assert len(nonces) == number + 1


@pytest.mark.case("A20")
async def test_a_generator_that_repeats_itself_is_noticed(tmp_path_factory: pytest.TempPathFactory) -> None:
    class Stuck:
        """Gives different ids, but always the same nonce and keys."""

        calls = 0

        def take(self, count: int) -> bytes:
            self.calls += 1
            return self.calls.to_bytes(count, "big") if count == 16 else b"n" * count

    async with opened(tmp_path_factory.mktemp("sbs"), random=Stuck()) as site:
        await site.create_roles()
        await site.put_policy()
        host = await site.enrol(SoftHost("host-1"))
        await site.offered(host)
        with pytest.raises(SessionError):
            await site.offered(host)


async def test_a_request_is_answered_once(site: Site, host: SoftHost) -> None:
    request, _ = host.session_request()
    await site.post("sessions", request)
    with pytest.raises(SessionError):
        await site.post("sessions", request)
    site.clock.seconds += 3600
    with pytest.raises(SessionError):
        await site.post("sessions", request)
    last = (await site.audit())[-1]
    assert (last["actor"], last["code"]) == ("nobody", "session"), (
        "it shows no identity: anyone may repeat it"
    )


async def test_only_an_enrolled_host_opens_a_session(site: Site, host: SoftHost) -> None:
    stranger = SoftHost("host-1", host_id=host.host_id, sbs_root=host.sbs_root)
    unknown = SoftHost("host-1", host_id=b"?" * 16, sbs_root=host.sbs_root)
    for bad in (stranger, unknown):
        with pytest.raises(SignatureError):
            await site.post("sessions", bad.session_request()[0])
    assert [item["code"] for item in (await site.audit())[-2:]] == ["signature", "signature"]


async def test_an_unknown_suite_is_refused(site: Site, host: SoftHost) -> None:
    said = SessionRequest.read_unverified(host.session_request()[0])
    with pytest.raises(VersionError):
        await site.post("sessions", replace(said, suites=(77,)).sign(host.key))


async def test_a_kem_key_that_is_none_is_refused(site: Site, host: SoftHost) -> None:
    said = SessionRequest.read_unverified(host.session_request()[0])
    with pytest.raises(MalformedError):
        await site.post("sessions", replace(said, kem_public=b"\xff" * 1216).sign(host.key))


@pytest.mark.case("A35")
async def test_a_revoked_host_opens_no_session(site: Site, host: SoftHost) -> None:
    session, evidence = await site.offered(host)
    await site.done("operator", "POST", f"/v1/hosts/{host.host_id.hex()}/revocation")
    with pytest.raises(SessionError):
        await show(site, session, evidence)
    with pytest.raises(PolicyError):
        await site.offered(host)


@pytest.mark.case("A25")
async def test_a_tpm_whose_time_went_back_is_refused(site: Site, host: SoftHost) -> None:
    await site.attested(host)
    host.tpm.clock -= 500
    with pytest.raises(QuoteError):
        await site.attested(host)
    host.tpm.clock += 500
    host.tpm.reset_count += 1
    await site.attested(host)
    host.tpm.reset_count -= 1
    with pytest.raises(QuoteError):
        await site.attested(host)


# ------------------------------------------------------------------ policy

GOOD_RULE = {"alg": "sha256", "index": PCR, "values": ["ab" * 32]}
BAD_POLICIES = {
    "empty": {},
    "no PCR": {"version": 2, "pcrs": {}},
    "misspelt member": {"version": 2, "pcr": {"a": GOOD_RULE}},
    "misspelt rule": {"version": 2, "pcrs": {"a": {"alg": "sha256", "index": PCR, "value": ["ab" * 32]}}},
    "unknown bank": {"version": 2, "pcrs": {"a": GOOD_RULE | {"alg": "sha257"}}},
    "unknown PCR": {"version": 2, "pcrs": {"a": GOOD_RULE | {"index": 24}}},
    "no value": {"version": 2, "pcrs": {"a": GOOD_RULE | {"values": []}}},
    "short value": {"version": 2, "pcrs": {"a": GOOD_RULE | {"values": ["ab"]}}},
    "misspelt flag": {"version": 2, "pcrs": {"a": GOOD_RULE}, "allow_debugs": True},
    "a list": [],
    "null": None,
}


@pytest.mark.case("A34")
@pytest.mark.parametrize("document", BAD_POLICIES.values(), ids=BAD_POLICIES)
async def test_a_bad_policy_is_not_put(site: Site, host: SoftHost, document: object) -> None:
    with pytest.raises((PolicyError, MalformedError)):
        await site.done("operator", "PUT", "/v1/policy", json.dumps(document).encode())
    assert (await site.done("operator", "GET", "/v1/policy"))["version"] == 1
    await site.attested(host)


@pytest.mark.case("A34")
async def test_without_a_policy_no_host_is_good(site: Site) -> None:
    await site.create_roles()
    host = await site.enrol(SoftHost("host-1"))
    with pytest.raises(PolicyError):
        await site.offered(host)


@pytest.mark.case("A34")
async def test_a_policy_is_not_rolled_back(site: Site, host: SoftHost) -> None:
    assert host.host_id
    await site.put_policy(5)
    for version in (4, 5):
        with pytest.raises(ConflictError):
            await site.put_policy(version)


async def test_a_host_that_measures_otherwise_is_told_so_authentically(site: Site, host: SoftHost) -> None:
    host.tpm.pcrs[PCR] = b"x" * 32
    with pytest.raises(PolicyError):
        await site.attested(host)
    last = (await site.audit())[-1]
    assert (last["action"], last["outcome"], last["code"]) == ("session.attest", "refused", "policy")


# ------------------------------------------------------------------ caps


@pytest.mark.case("E03")
async def test_offers_are_bounded_for_each_host(site: Site, host: SoftHost) -> None:
    for _ in range(16):
        await site.offered(host)
    with pytest.raises(BusyError):
        await site.offered(host)
    await site.offered(await site.enrol(SoftHost("host-2")))
    site.clock.seconds += 120
    await site.attested(host)


@pytest.mark.case("E03")
async def test_sessions_are_bounded_and_forgotten(tmp_path_factory: pytest.TempPathFactory) -> None:
    terms = Terms(max_sessions_per_host=2, retention_seconds=100)
    async with opened(tmp_path_factory.mktemp("sbs"), terms) as site:
        await site.create_roles()
        await site.put_policy()
        host = await site.enrol(SoftHost("host-1"))
        first = await site.attested(host)
        for _ in range(2):
            site.clock.seconds += 1
            await site.attested(host)
        with pytest.raises(SessionError):
            await site.launch(first, b"i" * 32)
        release_id = await site.push()
        await site.register_vm(host)
        await site.license()
        await site.launch(await site.attested(host), release_id)
        await site.done("acme", "POST", f"/v1/releases/{release_id.hex()}/revocation")
        site.clock.seconds += 3800
        await site.attested(host)
        async with site.database.read() as tx:
            assert (await tx.sessions.count(), await tx.record_numbers.count()) == (1, 0)
            assert await tx.events.count() == 1
        site.clock.seconds += 8 * 24 * 3600
        await site.attested(host)
        async with site.database.read() as tx:
            assert await tx.events.count() == 0


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xa0", bytes(70_000), bytes(1 << 21)], ids=len)
async def test_bad_bytes_are_refused_everywhere(site: Site, host: SoftHost, data: bytes) -> None:
    session = await site.attested(host)
    session_path = f"sessions/{session.session_id.hex()}"
    for path in ("evidence", "deployments", "renewal-challenges", "renewals", "lease-ends", "events"):
        with pytest.raises(CafeError) as caught:
            await site.post(f"{session_path}/{path}", data)
        assert caught.value.code in {"malformed", "limit", "session", "signature"}
        with pytest.raises(SessionError):
            await site.post(f"sessions/{'00' * 16}/{path}", b"\xa0")
    with pytest.raises(CafeError):
        await site.post("sessions", data)
