"""The HTTP face: the document reads well, and no request whatever makes the SBS fail."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sbs_site import Site, opened
from starlette.types import Message, Receive, Scope, Send

from cafe_lib.client.problems import ERRORS_BY_CODE
from cafe_lib.errors import CafeError, LicenceError
from sbs_server.adapters.system import RateLimits
from sbs_server.api import guard, problems
from sbs_server.api.auth import PERMISSIONS
from sbs_server.api.guard import Guard
from sbs_server.app import make_app, make_services

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")
ROLES = ("admin", "acme", "marketplace", "operator", None)


@pytest.mark.anyio
async def test_the_document_reads_well(site: Site) -> None:
    document = (await site.http.get("/openapi.json")).json()
    named = set()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["description"].endswith("."), where
            assert len(operation["tags"]) == 1, where
            assert re.fullmatch(r"[a-z_]+", operation["operationId"]), where
            assert "default" in operation["responses"], where
            secured = bool(operation.get("security"))
            assert secured == (operation["operationId"] in PERMISSIONS), where
            assert "422" not in operation["responses"], where
            named |= set(operation["tags"])
    assert named == {tag["name"] for tag in document["tags"]}
    for name, schema in document["components"]["schemas"].items():
        assert schema.get("description"), name
    for name in ("IdentityCreate", "LicenceCreate", "VmCreate", "ApprovalCreate", "Problem"):
        assert document["components"]["schemas"][name]["examples"], name


@pytest.mark.anyio
async def test_a_bad_member_is_named_but_not_quoted(site: Site) -> None:
    await site.create_roles()
    body = {"app": "nonsense secret", "tenant": "t", "seats": 0, "expires_at": "2100-01-01", "extra": 1}
    answer = await site.ask("marketplace", "POST", "/v1/licences", body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem["fields"]) == {"app", "seats", "expires_at", "extra"}
    assert (problem["code"], problem["status"]) == ("malformed", 400)
    assert "nonsense" not in answer.text


BAD_BODIES = {
    "identity of no role": ("/v1/identities", {"name": "x", "role": "king"}),
    "publisher without key": ("/v1/identities", {"name": "x", "role": "publisher"}),
    "operator with key": ("/v1/identities", {"name": "x", "role": "operator", "public_key": "ab" * 32}),
    "name with slash": ("/v1/identities", {"name": "a/b", "role": "admin"}),
    "name too long": ("/v1/identities", {"name": "a" * 64, "role": "admin"}),
    "name with newline": ("/v1/identities", {"name": "a\n", "role": "admin"}),
    "not an object": ("/v1/identities", [1]),
    "deep": ("/v1/identities", b"[" * 60_000),
    "not UTF-8": ("/v1/identities", b'{"name": "\xff"}'),
    "infinity": ("/v1/identities", b'{"name": Infinity}'),
}


@pytest.mark.anyio
@pytest.mark.parametrize(("path", "body"), BAD_BODIES.values(), ids=BAD_BODIES)
async def test_a_bad_body_is_refused(site: Site, path: str, body: object) -> None:
    headers = {"authorization": f"Bearer {site.api_keys['admin']}", "content-type": "application/json"}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await site.http.post(path, content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")


def test_every_error_has_a_status() -> None:
    for code, kind in ERRORS_BY_CODE.items():
        answer = problems.problem(kind(), problems.status_of(kind()))
        document = json.loads(bytes(answer.body))
        assert (document["code"], document["title"]) == (code, kind.sentence)
        assert 400 <= answer.status_code < 600
    assert problems.status_of(LicenceError()) == 403
    assert problems.status_of(CafeError()) == 500


PATHS = st.sampled_from(
    [
        "/v1/identities", "/v1/identities/{id}", "/v1/releases", "/v1/releases/{digest}",
        "/v1/releases/{digest}/revocation", "/v1/vms", "/v1/vms/{name}", "/v1/licences",
        "/v1/licences/{id}", "/v1/licences/{id}/revocation", "/v1/approvals", "/v1/hosts",
        "/v1/hosts/{id}/revocation", "/v1/policy", "/v1/audit", "/v1/keys", "/healthz", "/v1/enrolments",
        "/v1/enrolments/{id}/activation", "/v1/sessions", "/v1/sessions/{id}/evidence",
        "/v1/sessions/{id}/deployments", "/v1/sessions/{id}/renewals", "/v1/sessions/{id}/events",
        "/v1/sessions/{id}/renewal-challenges", "/v1/sessions/{id}/lease-ends", "/{name}",
    ]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=6),
    max_leaves=12,
)
MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text(max_size=70) | st.just("n"),
        "role": st.sampled_from(["admin", "operator", "publisher", "x"]),
        "public_key": st.binary(min_size=32, max_size=32).map(bytes.hex) | st.none(),
        "app": st.just("acme/x") | st.text(max_size=10),
        "tenant": st.text(max_size=5) | st.none(),
        "vm_id": st.text(max_size=5) | st.none(),
        "seats": st.integers() | st.just(1),
        "expires_at": st.datetimes().map(datetime.isoformat).map("{}Z".format) | st.integers() | st.text(),
        "host_id": st.just("00" * 16) | st.text(max_size=33),
        "ek_digest": st.binary(min_size=32, max_size=32).map(bytes.hex),
        "version": st.integers(),
        "pcrs": JSON,
    },
)
BODIES = st.binary(max_size=200) | (JSON | MEMBERS).map(lambda value: json.dumps(value).encode())
QUERIES = st.dictionaries(st.sampled_from(["after", "limit", "actor", "x"]), st.text(max_size=20), max_size=3)


@pytest.mark.case("E05")
def test_no_request_makes_it_fail(tmp_path: Path) -> None:
    """Any method, path, query and body, as anybody: an answer below 500, and a problem if refused."""

    async def story() -> None:
        async with opened(tmp_path) as site:
            await site.create_roles()
            loop = asyncio.get_running_loop()
            await asyncio.to_thread(requests, site, loop)

    def requests(site: Site, loop: asyncio.AbstractEventLoop) -> None:
        @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.sampled_from(METHODS), PATHS, st.sampled_from(ROLES), BODIES, QUERIES, st.text(max_size=40))
        def one(
            method: str, path: str, role: str | None, body: bytes, query: dict[str, str], name: str
        ) -> None:
            filled = path.format(id="00" * 16, digest="00" * 32, name=httpx.QueryParams({"": name}))
            headers = {"authorization": f"Bearer {site.api_keys[role]}"} if role else {}
            sent = site.http.request(
                method,
                filled,
                content=body,
                params=query,
                headers=headers | {"content-type": "application/json"},
            )
            answer = asyncio.run_coroutine_threadsafe(sent, loop).result(30)
            assert answer.status_code < 500
            if answer.is_error and method != "HEAD":
                assert answer.json()["code"] in ERRORS_BY_CODE

        one()

    asyncio.run(story())


# ------------------------------------------------------------------ the guard


class Client:
    """One end of a connection: gives messages, takes the answer."""

    def __init__(self, *messages: Message, pause: float = 0.0) -> None:
        self.messages, self.pause, self.sent = list(messages), pause, []

    async def receive(self) -> Message:
        await asyncio.sleep(self.pause)
        return self.messages.pop(0) if self.messages else {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/v1/identities", "/v1/releases"])
async def test_a_body_that_never_comes_is_not_waited_for(
    site: Site, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(guard, "_BODY_SECONDS", 0.1)
    monkeypatch.setattr(guard, "_SILENCE_SECONDS", 0.1)
    await site.create_roles()
    app = make_app(make_services(site.parts))
    key = site.api_keys["acme" if path == "/v1/releases" else "admin"]
    headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
    client = Client({"type": "http.request", "body": b"{", "more_body": True}, pause=0.5)
    async with asyncio.timeout(5):
        await app(scope | {"client": ("127.0.0.1", 1), "root_path": ""}, client.receive, client.send)
    assert client.sent[0]["status"] == 408


@pytest.mark.anyio
@pytest.mark.case("D05")
async def test_what_must_not_happen_tells_nothing(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("a secret in an exception")

    client = Client()
    scope = {"type": "http", "path": "/", "client": ("127.0.0.1", 1)}
    await Guard(fails, site.parts.limiter)(scope, client.receive, client.send)
    assert client.sent[0]["status"] == 500
    assert json.loads(client.sent[1]["body"])["code"] == "error"
    out, err = capfd.readouterr()
    assert "RuntimeError" in out + err
    assert "secret" not in out + err + str(client.sent)


@pytest.mark.anyio
@pytest.mark.case("E03")
async def test_one_address_cannot_ask_without_end(site: Site) -> None:
    limiter = RateLimits({"address": "2/minute", "people": "9/minute", "refusal": "9/minute"})
    transport = httpx.ASGITransport(make_app(make_services(replace(site.parts, limiter=limiter))))
    async with httpx.AsyncClient(transport=transport, base_url="http://sbs") as http:
        answers = [await http.get("/healthz") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["retry-after"] == "1"
    assert answers[2].json()["code"] == "busy"
