"""Enrolment: which requests get a challenge, and what a proof is good for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sbs_host import SoftHost, SoftTpm
from sbs_site import Site, opened

from cafe_lib.errors import (
    BusyError,
    CafeError,
    ConflictError,
    ForbiddenError,
    MalformedError,
    NotFoundError,
    QuoteError,
    SignatureError,
)
from cafe_lib.wire.messages import EnrolmentChallenge, EnrolmentRequest
from sbs_server.domain.values import Terms

pytestmark = pytest.mark.anyio


@pytest.fixture
async def staffed(site: Site) -> Site:
    await site.create_roles()
    return site


async def approve(site: Site, host: SoftHost, who: str = "operator") -> None:
    body = {"name": host.name, "ek_digest": host.tpm.ek_digest.hex()}
    await site.done(who, "POST", "/v1/approvals", body)


async def challenged(site: Site, host: SoftHost) -> tuple[bytes, bytes]:
    request = host.enrolment_request()
    return request, await site.post("enrolments", request)


async def activate(site: Site, enrolment_id: bytes, proof: bytes) -> bytes:
    return await site.post(f"enrolments/{enrolment_id.hex()}/activation", proof)


@pytest.mark.case("A14")
async def test_an_activation_works_once(staffed: Site) -> None:
    host = SoftHost("host-1")
    await approve(staffed, host)
    enrolment_id, proof, secret = host.prove(*await challenged(staffed, host))
    host.accept(secret, await activate(staffed, enrolment_id, proof))
    assert host.sbs_root == staffed.keys.root_public
    with pytest.raises(NotFoundError):
        await activate(staffed, enrolment_id, proof)


@pytest.mark.case("A14")
async def test_a_secret_for_one_key_does_not_enrol_another(staffed: Site) -> None:
    host = SoftHost("host-1")
    await approve(staffed, host)
    request, challenge = await challenged(staffed, host)
    enrolment_id, _, secret = host.prove(request, challenge)
    for change in ("ak", "key"):
        fresh = getattr(SoftHost("x"), change)
        other = replace(host, **{change: fresh})
        with pytest.raises(SignatureError):
            await activate(
                staffed, enrolment_id, other.proof(enrolment_id, other.enrolment_request(), secret)
            )
    assert (await staffed.done("operator", "GET", "/v1/hosts"))["items"] == []


@pytest.mark.case("A14")
async def test_the_secret_of_one_challenge_does_not_answer_another(staffed: Site) -> None:
    host = SoftHost("host-1")
    await approve(staffed, host)
    request, challenge = await challenged(staffed, host)
    _, _, secret = host.prove(request, challenge)
    again, second = await challenged(staffed, host)
    second_id = EnrolmentChallenge.parse(second).enrolment_id
    with pytest.raises(SignatureError):
        await activate(staffed, second_id, host.proof(second_id, again, secret))


@pytest.mark.case("A14")
async def test_the_host_key_has_to_sign(staffed: Site) -> None:
    host = SoftHost("host-1")
    await approve(staffed, host)
    request, challenge = await challenged(staffed, host)
    enrolment_id, _, secret = host.prove(request, challenge)
    with pytest.raises(SignatureError):
        await activate(staffed, enrolment_id, SoftHost("x").proof(enrolment_id, request, secret))


async def test_an_activation_in_the_end_is_too_late(staffed: Site) -> None:
    host = SoftHost("host-1")
    await approve(staffed, host)
    enrolment_id, proof, _ = host.prove(*await challenged(staffed, host))
    staffed.clock.seconds += 300
    with pytest.raises(NotFoundError):
        await activate(staffed, enrolment_id, proof)


@pytest.mark.case("A18")
async def test_another_tpm_does_not_take_over_a_name(staffed: Site) -> None:
    host = await staffed.enrol(SoftHost("host-1"))
    with pytest.raises(ForbiddenError):
        await challenged(staffed, SoftHost("host-1"))
    thief = SoftHost("host-2")
    await approve(staffed, thief)
    with pytest.raises(ForbiddenError):
        await challenged(staffed, replace(thief, name="host-1"))
    with pytest.raises(ConflictError):
        await approve(staffed, SoftHost("host-1"))
    (known,) = (await staffed.done("operator", "GET", "/v1/hosts"))["items"]
    assert (known["id"], known["ek_digest"]) == (host.host_id.hex(), host.tpm.ek_digest.hex())


@pytest.mark.case("A18")
async def test_another_operator_does_not_take_over_a_tpm(staffed: Site) -> None:
    await staffed.create("operator-2", "operator")
    host = await staffed.enrol(SoftHost("host-1"))
    await staffed.done("operator", "POST", f"/v1/hosts/{host.host_id.hex()}/revocation")
    with pytest.raises(ConflictError):
        await approve(staffed, host, "operator-2")


async def test_a_revoked_host_enrols_again_only_with_a_new_approval_and_as_another(staffed: Site) -> None:
    host = await staffed.enrol(SoftHost("host-1"))
    await staffed.done("operator", "POST", f"/v1/hosts/{host.host_id.hex()}/revocation")
    with pytest.raises(ForbiddenError):
        await challenged(staffed, host)
    again = await staffed.enrol(SoftHost("host-1", host.tpm))
    assert again.host_id != host.host_id


async def test_two_activations_under_way_make_one_host(staffed: Site) -> None:
    host = SoftHost("host-1")
    await approve(staffed, host)
    first = host.prove(*await challenged(staffed, host))
    second = host.prove(*await challenged(staffed, host))
    await activate(staffed, *first[:2])
    with pytest.raises(NotFoundError):
        await activate(staffed, *second[:2])


@pytest.mark.case("E03")
async def test_activations_under_way_are_bounded(staffed: Site) -> None:
    host = SoftHost("host-1")
    await approve(staffed, host)
    for _ in range(8):
        await challenged(staffed, host)
    with pytest.raises(BusyError):
        await challenged(staffed, host)
    staffed.clock.seconds += 301
    enrolment_id, proof, secret = host.prove(*await challenged(staffed, host))
    host.accept(secret, await activate(staffed, enrolment_id, proof))


class WeakAk(SoftHost):
    """Offers its EK as AK: a decryption key."""

    @property
    def ak_public(self) -> bytes:
        return self.tpm.ek_public


class WeakEk(SoftTpm):
    """Offers a signing key as EK."""

    @property
    def ek_public(self) -> bytes:
        return SoftHost("x", ak=self.ek).ak_public


@pytest.mark.case("A11")
@pytest.mark.parametrize("host", [WeakAk("host-1"), SoftHost("host-1", WeakEk())], ids=["ak", "ek"])
async def test_keys_of_the_wrong_kind_are_refused(staffed: Site, host: SoftHost) -> None:
    await approve(staffed, host)
    with pytest.raises(QuoteError):
        await challenged(staffed, host)


def _requests() -> dict[str, bytes]:
    good = EnrolmentRequest.parse(SoftHost("host-1").enrolment_request())
    cut = replace(good, ak_public=good.ak_public[:-1])
    return {
        "empty": b"",
        "text": b"hello",
        "cut short": good.encode()[:-1],
        "trailing byte": good.encode() + b"\0",
        "public area cut short": cut.encode(),
        "not a public area": replace(good, ek_public=b"\0\0").encode(),
        "a megabyte": bytes(1 << 20),
    }


@pytest.mark.parametrize("data", _requests().values(), ids=_requests())
async def test_bad_requests_are_refused(staffed: Site, data: bytes) -> None:
    with pytest.raises(CafeError) as caught:
        await staffed.post("enrolments", data)
    assert caught.value.code in {"malformed", "limit", "quote"}


async def test_bad_proofs_are_refused(staffed: Site) -> None:
    for path in ("0" * 32, "f" * 32):
        with pytest.raises(MalformedError):
            await staffed.post(f"enrolments/{path}/activation", b"\xff")
    for path in ("0" * 31, "F" * 32, "..%2f" * 6):
        answer = await staffed.http.post(f"/v1/enrolments/{path}/activation", content=b"\xff")
        assert answer.status_code in {400, 404}


async def test_every_decision_is_recorded(staffed: Site) -> None:
    host = await staffed.enrol(SoftHost("host-1"))
    with pytest.raises(ForbiddenError):
        await challenged(staffed, SoftHost("host-9"))
    found = [(item["action"], item["outcome"], item["subject"]) for item in (await staffed.audit())[-4:]]
    assert found == [
        ("host.approve", "allowed", "host-1"),
        ("enrolment.begin", "allowed", "host-1"),
        ("enrolment.activate", "allowed", "host-1"),
        ("enrolment.begin", "refused", "host-9"),
    ]
    assert (await staffed.audit())[-2]["host_id"] == host.host_id.hex()


@pytest.mark.case("E03")
async def test_refusals_of_nobody_cannot_fill_the_store(tmp_path_factory: pytest.TempPathFactory) -> None:
    class Never:
        """A limiter that allows no refusal to be recorded."""

        async def take(self, kind: str, caller: str) -> None:
            if kind == "refusal":
                raise BusyError(caller)

    async with opened(tmp_path_factory.mktemp("sbs"), Terms(), limiter=Never()) as site:
        with pytest.raises(MalformedError):
            await site.post("enrolments", b"\xff")
        assert [item["action"] for item in await site.audit()] == ["identity.create"]
