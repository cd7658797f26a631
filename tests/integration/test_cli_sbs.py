"""The command line against a real SBS on loopback: the whole of what people do, role by role."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cafe_lib.cli import audit, host, identity, licence, release, vm
from cafe_lib.cli.main import run
from cafe_lib.client.connection import Timeouts
from cafe_lib.client.sbs import SbsClient
from cafe_lib.errors import CafeError, NotFoundError, ProtocolError, TransportError, UnauthenticatedError
from sbs_server.api import schemas

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
EK = "cd" * 32
POLICY = {"version": 1, "pcrs": {"boot": {"alg": "sha256", "index": 0, "values": ["ab" * 32]}}}


@dataclass
class Site:
    """A running SBS, and one API key per role."""

    folder: Path
    url: str
    keys: dict[str, str]

    def run(self, role: str, *words: str) -> tuple[int, str, str]:
        """Run the command in this process, as the identity of this role; give exit code, stdout, stderr."""
        own = {"CAFE_SBS_URL": self.url, "CAFE_API_KEY": self.keys.get(role, ""), "CAFE_CONFIG": "/dev/null"}
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name, value in own.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["cafe", *words])
            with pytest.raises(SystemExit) as ended:
                run()
        return int(ended.value.code or 0), out.getvalue(), err.getvalue()

    def json(self, role: str, *words: str) -> Any:  # noqa: ANN401 -- any JSON value
        code, out, err = self.run(role, *words, "--json")
        assert code == 0, err
        return json.loads(out)

    def refused(self, role: str, *words: str) -> tuple[int, str]:
        code, out, _ = self.run(role, *words, "--json")
        assert code != 0
        return code, json.loads(out)["error"]["code"]

    @property
    def publisher(self) -> str:
        return str(self.folder / "publisher")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        try:
            with SbsClient(url, timeouts=Timeouts(connect=1, answer=1)) as client:
                client.health()
                return
        except TransportError:
            time.sleep(0.1)
    raise AssertionError("the SBS did not start")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    state, port = str(folder / "sbs"), _free_port()
    init = [str(BIN / "cafe-sbs"), "init", "--dir", state, "--json"]
    made = json.loads(subprocess.run(init, capture_output=True, text=True, check=True).stdout)
    serve = [str(BIN / "cafe-sbs"), "serve", "--dir", state, "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("wb") as log, subprocess.Popen(serve, stdout=log, stderr=log) as process:
        site = Site(folder, f"http://127.0.0.1:{port}", {"admin": made["admin_key"]})
        try:
            _wait_for(site.url, process)
            _make_identities(site)
            yield site
        finally:
            process.terminate()
            process.wait(20)


def _make_identities(site: Site) -> None:
    site.run("", "publisher", "init", "--dir", site.publisher)
    for role in ("marketplace", "operator"):
        site.keys[role] = site.json("admin", "identity", "create", role, "--role", role)["api_key"]
    words = ("identity", "create", "acme", "--role", "publisher", "--publisher", site.publisher)
    site.keys["publisher"] = site.json("admin", *words)["api_key"]


@pytest.fixture(scope="module")
def pushed(site: Site) -> dict[str, Any]:
    """Build and push the example; give the release."""
    project, out = str(ROOT / "examples" / "totp"), str(site.folder / "out")
    built = site.json("", "build", project, "--publisher", site.publisher, "--output", out)
    first: dict[str, Any] = site.json("publisher", "push", built["package"], "--publisher", site.publisher)
    assert first["id"] == built["secret_binary_id"]
    return first


def test_push_pins_and_refuses_the_same_again(site: Site, pushed: dict[str, Any]) -> None:
    package = str(site.folder / "out" / "totp.cafe")
    pins = json.loads((Path(site.publisher) / "release-keys.json").read_text())
    with SbsClient(site.url) as client:
        keys = client.keys()
    assert list(pins.values()) == [keys["release_key_id"]]
    words = ("push", package, "--publisher", site.publisher)
    assert site.refused("publisher", *words) == (1, "conflict")
    assert site.refused("publisher", *words, "--release-key", "00" * 32) == (1, "digest")
    assert site.refused("marketplace", *words) == (1, "forbidden")
    assert site.refused("", *words) == (1, "unauthenticated")
    assert site.json("publisher", "release", "list") == [pushed]
    assert site.json("publisher", "release", "show", pushed["id"]) == pushed


@pytest.mark.case("C08")
def test_uploads_that_lie(site: Site, pushed: dict[str, Any], tmp_path: Path) -> None:
    other = str(tmp_path / "other")
    site.run("", "publisher", "init", "--dir", other)
    project = str(ROOT / "examples" / "totp")
    built = site.json("", "build", project, "--publisher", other, "--output", str(tmp_path / "out"))
    assert site.refused("publisher", "push", built["package"], "--publisher", other)[0] == 1
    with SbsClient(site.url, site.keys["publisher"]) as client:
        for body, size in ((b"x", 1), (b"", 0), (b"CAFEPKG1" + bytes(200), 208)):
            with pytest.raises(ProtocolError):
                client.push_release(iter([body]), size)
        wrapped = Path(built["package"]).read_bytes()
        with pytest.raises(CafeError):
            client.push_release(iter([wrapped]), len(wrapped))
    assert [item["id"] for item in site.json("publisher", "release", "list")] == [pushed["id"]]


def test_licences(site: Site, pushed: dict[str, Any]) -> None:
    words = ("licence", "issue", "--app", pushed["app"], "--tenant", "globex", "--seats", "3")
    made = site.json("marketplace", *words)
    assert (made["seats"], made["seats_used"], made["revoked_at"]) == (3, 0, None)
    assert site.json("marketplace", "licence", "show", made["id"]) == made
    assert made in site.json("publisher", "licence", "list")
    assert site.refused("operator", *words) == (1, "forbidden")
    assert site.refused("marketplace", "licence", "show", "00" * 16) == (1, "not_found")
    assert site.refused("marketplace", "licence", "show", "nonsense")[0] in {1, 2}
    assert site.json("marketplace", "licence", "revoke", made["id"])["revoked_at"] is not None
    table = site.run("marketplace", "licence", "list")[1]
    assert made["id"] in table


def test_hosts_vms_and_policy(site: Site, tmp_path: Path) -> None:
    assert site.json("operator", "host", "approve", "host-1", "--ek", EK)["name"] == "host-1"
    assert site.refused("operator", "host", "approve", "host-2", "--ek", EK) == (1, "conflict")
    assert site.refused("marketplace", "host", "approve", "host-2", "--ek", EK) == (1, "forbidden")
    assert site.json("operator", "host", "list") == []
    assert [item["name"] for item in site.json("operator", "host", "approvals")] == ["host-1"]
    words = ("vm", "register", "web-1", "--host", "00" * 16, "--tenant", "globex")
    assert site.refused("operator", *words) == (1, "not_found")
    assert site.json("operator", "vm", "list") == []
    assert site.refused("operator", "vm", "remove", "web-1") == (1, "not_found")
    assert site.refused("operator", "host", "revoke", "00" * 16) == (1, "not_found")
    (tmp_path / "policy.json").write_text(json.dumps(POLICY))
    assert site.json("operator", "policy", "set", str(tmp_path / "policy.json"))["version"] == 1
    assert site.json("operator", "policy", "show")["policy"] == POLICY
    assert site.refused("operator", "policy", "set", str(tmp_path / "policy.json")) == (1, "conflict")


def test_the_end_of_an_identity(site: Site) -> None:
    made = site.json("admin", "identity", "create", "short", "--role", "marketplace")
    site.keys["short"] = made["api_key"]
    assert site.json("short", "licence", "list") == []
    site.json("admin", "identity", "delete", made["id"])
    assert site.refused("short", "licence", "list") == (1, "unauthenticated")
    listed = {item["name"]: item for item in site.json("admin", "identity", "list")}
    assert listed["short"]["revoked_at"] is not None
    assert "api_key" not in json.dumps(list(listed.values()))


def test_the_audit_tells_what_happened(site: Site) -> None:
    records = site.json("admin", "audit")
    assert {"allowed", "refused"} <= {record["outcome"] for record in records}
    last = records[-1]["number"]
    assert site.json("admin", "audit", "--after", str(last)) == []
    assert site.refused("marketplace", "audit") == (1, "forbidden")
    assert all(key not in json.dumps(records) for key in site.keys.values())


@pytest.mark.parametrize(
    ("columns", "model"),
    [
        (identity._COLUMNS, schemas.Identity),
        (release._COLUMNS, schemas.Release),
        (licence._COLUMNS, schemas.Licence),
        (vm._COLUMNS, schemas.Vm),
        (host._COLUMNS, schemas.Host),
        (host._APPROVALS, schemas.Approval),
        (audit._COLUMNS, schemas.AuditRecord),
    ],
)
def test_tables_show_what_the_sbs_sends(columns: tuple[str, ...], model: type[Any]) -> None:
    assert set(columns) <= set(model.model_fields)


def test_roles_are_those_of_the_sbs() -> None:
    assert {role.value for role in identity.Role} == {role.value for role in schemas.Role}


def test_host_calls_reach_their_endpoints(site: Site) -> None:
    """A proper path with a body that is no message: a typed refusal, never an unknown path."""
    with SbsClient(site.url) as client:
        for call in (client.enrol, client.open_session):
            with pytest.raises(ProtocolError):
                call(b"\xff")
        for ask in (
            client.activate,
            client.send_evidence,
            client.renewal_challenge,
            client.renew,
            client.end_lease,
        ):
            with pytest.raises(CafeError) as caught:
                ask(bytes(16), b"\xff")
            assert not isinstance(caught.value, NotFoundError | TransportError | UnauthenticatedError)
        for stream in (client.deploy, client.events):
            with pytest.raises(CafeError) as caught, stream(bytes(16), b"\xff"):
                pass
            assert not isinstance(caught.value, NotFoundError | TransportError | UnauthenticatedError)
