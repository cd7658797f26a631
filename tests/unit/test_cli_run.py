"""The command as a user runs it: exit codes, what goes where, and what is sent, against a scripted SBS."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cafe_lib.cli.main import run

KEY = "cafe_0123_secret"
LICENCE = {"id": "11" * 16, "app": "acme/totp", "tenant": "globex", "seats": 2, "seats_used": 0}


@dataclass
class ScriptedSbs:
    """Answers every request with the same status and body; remembers the requests."""

    url: str = ""
    status: int = 200
    body: object = None
    requests: list[tuple[str, str, str | None, bytes]] = field(default_factory=list)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                script.requests.append((self.command, self.path, self.headers["authorization"], body))
                answer = json.dumps(script.body).encode()
                self.send_response(script.status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PUT = do_DELETE = do  # noqa: N815 -- the names http.server looks for

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def sbs(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedSbs]:
    script = ScriptedSbs()
    server = ThreadingHTTPServer(("127.0.0.1", 0), script.handler())
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("CAFE_SBS_URL", script.url)
    monkeypatch.setenv("CAFE_API_KEY", KEY)
    monkeypatch.setenv("CAFE_CONFIG", "/dev/null")
    yield script
    server.shutdown()
    thread.join()
    server.server_close()


Cafe = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cafe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cafe:
    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cafe", *words])
        with pytest.raises(SystemExit) as ended:
            run()
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return call


def test_what_is_sent_and_what_is_shown(sbs: ScriptedSbs, cafe: Cafe) -> None:
    sbs.body = LICENCE
    code, out, err = cafe(
        "licence", "issue", "--app", "acme/totp", "--tenant", "globex", "--seats", "2", "--json"
    )
    assert (code, err, json.loads(out)) == (0, "", LICENCE)
    method, path, authorization, body = sbs.requests[0]
    assert (method, path, authorization) == ("POST", "/v1/licences", f"Bearer {KEY}")
    sent = json.loads(body)
    assert sent.pop("expires_at").endswith("+00:00")
    assert sent == {"app": "acme/totp", "tenant": "globex", "vm_id": None, "seats": 2}


def test_lists_are_read_to_their_end(sbs: ScriptedSbs, cafe: Cafe) -> None:
    sbs.body = {"items": [LICENCE], "next": None}
    code, out, _ = cafe("licence", "list", "--json")
    assert (code, json.loads(out)) == (0, [LICENCE])
    code, out, _ = cafe("licence", "list")
    assert code == 0
    assert "globex" in out
    assert sbs.requests[0][1] == "/v1/licences?limit=500"


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, "unauthenticated", 1),
        (403, "forbidden", 1),
        (404, "not_found", 1),
        (409, "conflict", 1),
        (422, "malformed", 2),
        (413, "limit", 2),
        (500, "error", 3),
        (503, "transport", 3),
    ],
)
def test_exit_codes_of_refusals(sbs: ScriptedSbs, cafe: Cafe, status: int, code: str, expected: int) -> None:
    sbs.status, sbs.body = status, {"code": code, "title": "Refused for a reason."}
    ended, out, err = cafe("host", "list")
    assert (ended, out) == (expected, "")
    assert err.startswith("error: Refused for a reason.")
    ended, out, _ = cafe("host", "list", "--json")
    assert json.loads(out)["error"]["code"] in {code, "transport"}


@pytest.mark.parametrize(
    "body",
    [None, [], {"items": {}}, {"items": [1]}, {"items": [], "next": 5}],
    ids=["null", "bare-list", "object-for-list", "numbers", "next-is-a-number"],
)
def test_answers_that_are_no_list(sbs: ScriptedSbs, cafe: Cafe, body: object) -> None:
    sbs.body = body
    ended, out, err = cafe("vm", "list")
    assert (ended, out) == (2, "")
    assert "error:" in err


def test_ids_cannot_become_other_paths(sbs: ScriptedSbs, cafe: Cafe) -> None:
    sbs.body = {}
    assert cafe("licence", "show", "../hosts?x=1#y", "--json")[0] == 0
    assert sbs.requests[0][1] == "/v1/licences/..%2Fhosts%3Fx%3D1%23y"
    assert cafe("licence", "show", "..")[0] == 2
    assert cafe("vm", "remove", "")[0] == 2


@pytest.mark.parametrize(
    "words",
    [
        ("licence", "issue", "--app", "acme/totp"),
        ("licence", "issue", "--app", "acme/totp", "--tenant", "a", "--vm", "b"),
        ("licence", "issue", "--app", "acme/totp", "--tenant", "a", "--seats", "0"),
        ("identity", "create", "acme", "--role", "publisher"),
        ("identity", "create", "acme", "--role", "root"),
        ("identity", "create", "acme", "--role", "publisher", "--public-key", "00", "--publisher", "."),
        ("identity", "create", "ops", "--role", "operator", "--public-key", "00"),
        ("identity", "create", "ops", "--role", "operator", "--publisher", "."),
        ("identity", "create", "ops", "--role", "operator", "--publisher", ".", "--public-key", "00"),
        ("host", "approve", "h1"),
        ("nonsense",),
        ("host", "list", "--api-key", "x"),
        ("host", "list", "--sbs", "http://sbs.example"),
    ],
    ids=" ".join,
)
def test_usage_errors_send_nothing(sbs: ScriptedSbs, cafe: Cafe, words: tuple[str, ...]) -> None:
    ended, out, err = cafe(*words)
    assert (ended, out) == (2, "")
    assert err
    assert sbs.requests == []


def test_a_key_is_saved_for_its_owner_only(sbs: ScriptedSbs, cafe: Cafe, tmp_path: Path) -> None:
    sbs.body = {"id": "11" * 16, "name": "ops", "api_key": KEY}
    path = tmp_path / "ops.key"
    words = ("identity", "create", "ops", "--role", "operator", "--save-key", str(path))
    code, out, _ = cafe(*words)
    assert code == 0
    assert KEY not in out
    assert path.read_text() == f"{KEY}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert cafe(*words)[0] == 4
    assert len(sbs.requests) == 1
    path.unlink()
    sbs.status, sbs.body = 409, {"code": "conflict", "title": "Taken."}
    code, _, err = cafe(*words)
    assert code == 1
    assert "hint: " in err
    assert not path.exists()


def test_nobody_listens(sbs: ScriptedSbs, cafe: Cafe) -> None:
    assert cafe("host", "list", "--sbs", "http://127.0.0.1:1")[0] == 3
    assert sbs.requests == []


@pytest.mark.parametrize("text", ["", "{}", '{"version": 1, "pcrs": {}}', "[" * 5000, " " * 70_000])
def test_a_policy_is_checked_before_it_is_sent(
    sbs: ScriptedSbs, cafe: Cafe, tmp_path: Path, text: str
) -> None:
    (tmp_path / "policy.json").write_text(text)
    ended, _, err = cafe("policy", "set", str(tmp_path / "policy.json"))
    assert ended in {1, 2}
    assert err
    assert sbs.requests == []


def test_a_package_that_is_none(sbs: ScriptedSbs, cafe: Cafe, tmp_path: Path) -> None:
    publisher = str(tmp_path / "publisher")
    assert cafe("publisher", "init", "--dir", publisher)[0] == 0
    (tmp_path / "x.cafe").write_bytes(b"not a package at all")
    assert cafe("push", str(tmp_path / "x.cafe"), "--publisher", publisher)[0] == 2
    assert cafe("push", str(tmp_path / "none.cafe"), "--publisher", publisher)[0] == 1
    assert sbs.requests == []
