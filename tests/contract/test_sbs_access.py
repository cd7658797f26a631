"""Who may call what, and who sees whose objects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from image_samples import IDENTITY, OTHER
from sbs_host import SoftHost
from sbs_site import APP, TENANT, VM, Site

from cafe_lib.errors import ConflictError, NotFoundError
from sbs_server.app import make_app, make_services

pytestmark = [pytest.mark.anyio, pytest.mark.case("E04")]

ID, DIGEST = "00" * 16, "00" * 32
LICENCE = {"app": APP, "tenant": TENANT, "seats": 1, "expires_at": "2100-01-01T00:00:00Z"}
POLICY = {"version": 9, "pcrs": {"a": {"alg": "sha256", "index": 1, "values": ["ab" * 32]}}}
ADMIN, PUBLISHER, MARKET, OPERATOR = "admin", "acme", "marketplace", "operator"
ROLES = (ADMIN, PUBLISHER, MARKET, OPERATOR)
# (method, path, body, who may). Written down a second time on purpose: the server's table must agree.
MATRIX: tuple[tuple[str, str, object, tuple[str, ...]], ...] = (
    ("POST", "/v1/identities", {"name": "new", "role": "operator"}, (ADMIN,)),
    ("GET", "/v1/identities", None, (ADMIN,)),
    ("DELETE", f"/v1/identities/{ID}", None, (ADMIN,)),
    ("POST", "/v1/releases", b"not a package", (PUBLISHER,)),
    ("GET", "/v1/releases", None, (ADMIN, PUBLISHER, MARKET)),
    ("GET", f"/v1/releases/{DIGEST}", None, (ADMIN, PUBLISHER, MARKET)),
    ("POST", f"/v1/releases/{DIGEST}/revocation", None, (ADMIN, PUBLISHER)),
    ("POST", "/v1/vms", {"vm_id": "v", "host_id": ID, "tenant": "t"}, (OPERATOR,)),
    ("GET", "/v1/vms", None, (ADMIN, OPERATOR)),
    ("DELETE", "/v1/vms/v", None, (OPERATOR,)),
    ("POST", "/v1/licences", LICENCE, (MARKET,)),
    ("GET", "/v1/licences", None, (ADMIN, MARKET, PUBLISHER)),
    ("GET", f"/v1/licences/{ID}", None, (ADMIN, MARKET, PUBLISHER)),
    ("POST", f"/v1/licences/{ID}/revocation", None, (ADMIN, MARKET)),
    ("POST", "/v1/approvals", {"ek_digest": DIGEST, "name": "h"}, (OPERATOR,)),
    ("GET", "/v1/approvals", None, (ADMIN, OPERATOR)),
    ("GET", "/v1/hosts", None, (ADMIN, OPERATOR)),
    ("POST", f"/v1/hosts/{ID}/revocation", None, (ADMIN, OPERATOR)),
    ("GET", "/v1/policy", None, (ADMIN, OPERATOR)),
    ("PUT", "/v1/policy", POLICY, (ADMIN, OPERATOR)),
    ("GET", "/v1/audit", None, (ADMIN,)),
)
OPEN = {
    ("GET", "/v1/keys"),
    ("GET", "/healthz"),
    ("POST", "/v1/enrolments"),
    ("POST", "/v1/enrolments/{enrolment_id}/activation"),
    ("POST", "/v1/sessions"),
    ("POST", "/v1/sessions/{session_id}/evidence"),
    ("POST", "/v1/sessions/{session_id}/deployments"),
    ("POST", "/v1/sessions/{session_id}/renewal-challenges"),
    ("POST", "/v1/sessions/{session_id}/renewals"),
    ("POST", "/v1/sessions/{session_id}/lease-ends"),
    ("POST", "/v1/sessions/{session_id}/events"),
}


def routes(site: Site) -> Iterator[tuple[str, str]]:
    document = make_app(make_services(site.parts)).openapi()
    for path, methods in document["paths"].items():
        for method in methods:
            yield method.upper(), path


async def test_every_endpoint_is_in_the_matrix_or_open(site: Site) -> None:
    found = set(routes(site))
    assert found >= OPEN
    guarded = {(method, re.sub(r"\{[a-z_]+\}", "*", path)) for method, path in found - OPEN}
    assert guarded == {
        (method, re.sub(rf"{DIGEST}|{ID}|(?<=vms/)v", "*", path)) for method, path, _, _ in MATRIX
    }


@pytest.mark.parametrize(
    ("method", "path", "body", "may"), MATRIX, ids=[f"{m} {p[:24]}" for m, p, _, _ in MATRIX]
)
async def test_each_role_at_each_endpoint(
    site: Site, method: str, path: str, body: object, may: tuple[str, ...]
) -> None:
    await site.create_roles()
    for role in ROLES:
        answer = await site.ask(role, method, path, body)
        forbidden = answer.status_code == 403 and answer.json()["code"] == "forbidden"
        assert forbidden == (role not in may), f"{role}: {answer.status_code}"
        assert answer.status_code != 401
    nobody = await site.ask(None, method, path, body)
    assert (nobody.status_code, nobody.json()["code"]) == (401, "unauthenticated")
    assert nobody.headers["www-authenticate"] == "Bearer"


async def test_a_forbidden_call_is_recorded(site: Site) -> None:
    await site.create_roles()
    assert (await site.ask("acme", "GET", "/v1/audit")).status_code == 403
    last = (await site.audit())[-1]
    assert (last["actor"], last["action"], last["code"]) == ("acme", "list_audit", "forbidden")


WRONG_KEYS = {
    "empty": "",
    "no key": "cafe",
    "other secret": "cafe_{id}_" + "0" * 64,
    "other id": "cafe_" + "0" * 32 + "_{secret}",
    "upper case": "cafe_{ID}_{secret}",
    "short secret": "cafe_{id}_{short}",
    "trailing newline": "cafe_{id}_{secret}%0a",
    "not ascii": "cafe_{id}_é",
}


@pytest.mark.parametrize("wrong", WRONG_KEYS.values(), ids=WRONG_KEYS)
async def test_a_wrong_key_is_no_key(site: Site, wrong: str) -> None:
    _, identity_id, secret = site.api_keys["admin"].split("_")
    key = wrong.format(id=identity_id, ID=identity_id.upper(), secret=secret, short=secret[:-1])
    headers = [(b"authorization", b"Bearer " + key.encode())]
    answer = await site.http.get("/v1/identities", headers=headers)
    assert answer.status_code == 401
    assert (
        await site.http.get("/v1/identities", headers={"authorization": f"Basic {secret}"})
    ).status_code == 401


async def test_guessing_keys_is_slowed_down(site: Site) -> None:
    site.api_keys["guess"] = "cafe_" + "0" * 32 + "_" + "0" * 64
    codes = [(await site.ask("guess", "GET", "/v1/policy")).status_code for _ in range(62)]
    assert codes[0] == 401
    assert codes[-1] == 429


async def test_an_ended_identity_is_nobody(site: Site) -> None:
    identity_id = await site.create("operator", "operator")
    await site.done("admin", "DELETE", f"/v1/identities/{identity_id}")
    assert (await site.ask("operator", "GET", "/v1/hosts")).status_code == 401
    with pytest.raises(ConflictError):
        await site.create("operator", "operator")
    with pytest.raises(NotFoundError):
        await site.done("admin", "DELETE", f"/v1/identities/{identity_id}")


async def test_the_last_administrator_stays(site: Site) -> None:
    (admin,) = (await site.done("admin", "GET", "/v1/identities"))["items"]
    with pytest.raises(ConflictError):
        await site.done("admin", "DELETE", f"/v1/identities/{admin['id']}")
    await site.create("second", "admin")
    await site.done("admin", "DELETE", f"/v1/identities/{admin['id']}")
    assert (await site.ask("second", "GET", "/v1/audit")).status_code == 200


@pytest.fixture
async def two_of_each(site: Site) -> dict[str, Any]:
    """Give the first of each role objects, and make a second of each role that owns nothing."""
    host, release_id = await site.ready(seats=1)
    await site.create("rival", "publisher", OTHER.public_key.hex())
    await site.create("market-2", "marketplace")
    await site.create("operator-2", "operator")
    (licence,) = (await site.done("marketplace", "GET", "/v1/licences"))["items"]
    return {"host": host, "release": release_id.hex(), "licence": licence["id"]}


OTHERS = (
    ("rival", "GET", "/v1/releases/{release}"),
    ("rival", "POST", "/v1/releases/{release}/revocation"),
    ("rival", "GET", "/v1/licences/{licence}"),
    ("market-2", "GET", "/v1/licences/{licence}"),
    ("market-2", "POST", "/v1/licences/{licence}/revocation"),
    ("operator-2", "POST", "/v1/hosts/{host}/revocation"),
    ("operator-2", "DELETE", f"/v1/vms/{VM}"),
)
LISTS = (
    ("acme", "rival", "/v1/releases"),
    ("acme", "rival", "/v1/licences"),
    ("marketplace", "market-2", "/v1/licences"),
    ("operator", "operator-2", "/v1/hosts"),
    ("operator", "operator-2", "/v1/approvals"),
    ("operator", "operator-2", "/v1/vms"),
)


async def test_objects_of_others_do_not_exist(site: Site, two_of_each: dict[str, Any]) -> None:
    names = two_of_each | {"host": two_of_each["host"].host_id.hex()}
    for who, method, path in OTHERS:
        answer = await site.ask(who, method, path.format(**names))
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (who, method, path)
    for owner, other, path in LISTS:
        assert len((await site.done(owner, "GET", path))["items"]) == 1, path
        assert (await site.done(other, "GET", path))["items"] == [], path
        if "approvals" not in path:
            assert len((await site.done("admin", "GET", path))["items"]) == 1, path


async def test_a_vm_goes_only_to_the_operators_own_host(site: Site, two_of_each: dict[str, Any]) -> None:
    host: SoftHost = two_of_each["host"]
    body = {"vm_id": "stolen", "host_id": host.host_id.hex(), "tenant": TENANT}
    assert (await site.ask("operator-2", "POST", "/v1/vms", body)).status_code == 404


async def test_the_name_of_a_removed_vm_stays_with_operator_and_tenant(
    site: Site, two_of_each: dict[str, Any]
) -> None:
    host: SoftHost = two_of_each["host"]
    await site.done("operator", "DELETE", f"/v1/vms/{VM}")
    with pytest.raises(ConflictError):
        await site.register_vm(host, tenant="other")
    await site.register_vm(host)
    with pytest.raises(ConflictError):
        await site.register_vm(host)


async def test_two_publishers_never_share_a_key(site: Site) -> None:
    await site.create_roles()
    with pytest.raises(ConflictError):
        await site.create("copycat", "publisher", IDENTITY.public_key.hex())
