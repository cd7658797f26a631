"""`cafe-sbs` as its operator meets it: init once, serve, end in order, refuse what is unsafe."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

BIN = Path(sys.executable).parent / "cafe-sbs"


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("CAFE_SBS_")}
    command = [str(BIN), *words]
    return subprocess.run(
        command, env=own | environment, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("sbs") / "state"
    done = run("init", "--dir", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@contextmanager
def served(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, object]]]:
    """Serve; give the process and its `ready` event."""
    command = [str(BIN), "serve", "--dir", str(folder), "--port", "0", "--events", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            yield process, json.loads(line)
        finally:
            process.kill()


def test_init_prints_the_first_key_once_and_keeps_it_nowhere(made: tuple[Path, dict[str, str]]) -> None:
    folder, said = made
    assert set(said) == {"admin_key", "sbs_root", "release_key_id"}
    again = run("init", "--dir", str(folder), "--json")
    assert (again.returncode, again.stdout) == (1, "")
    secret = said["admin_key"].encode()[-64:]
    for path in folder.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
        if path.is_file():
            assert secret not in path.read_bytes()
            assert bytes.fromhex(secret.decode()) not in path.read_bytes()
    shown = json.loads(run("keys", "--json", CAFE_SBS_DIR=str(folder)).stdout)
    assert shown == {name: said[name] for name in ("sbs_root", "release_key_id")}


@pytest.mark.case("E01")
def test_init_broken_off_can_be_repeated(tmp_path: Path) -> None:
    bad = run("init", "--dir", str(tmp_path / "s"), CAFE_SBS_DATABASE_URL="sqlite+aiosqlite:////no/such/db")
    assert bad.returncode == 3
    good = run("init", "--dir", str(tmp_path / "s"), "--json")
    assert good.returncode == 0
    assert json.loads(good.stdout)["admin_key"].startswith("cafe_")


def test_it_serves_and_ends_in_order(made: tuple[Path, dict[str, str]]) -> None:
    folder, said = made
    with served(folder) as (process, ready):
        assert (ready["event"], ready["by"]) == ("ready", "sbs")
        url = f"http://127.0.0.1:{ready['port']}"
        assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
        headers = {"authorization": f"Bearer {said['admin_key']}"}
        assert httpx.get(f"{url}/v1/identities", headers=headers).json()["items"][0]["name"] == "admin"
        assert "server" not in httpx.get(f"{url}/healthz").headers
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - start < 5


@pytest.mark.case("E01")
def test_it_serves_again_after_it_was_killed(made: tuple[Path, dict[str, str]]) -> None:
    folder, said = made
    headers = {"authorization": f"Bearer {said['admin_key']}"}
    with served(folder) as (process, ready):
        body = {"name": "operator", "role": "operator"}
        url = f"http://127.0.0.1:{ready['port']}/v1/identities"
        assert httpx.post(url, json=body, headers=headers).status_code == 201
        process.kill()
        process.wait(5)
    with served(folder) as (_, ready):
        found = httpx.get(f"http://127.0.0.1:{ready['port']}/v1/identities", headers=headers).json()
        assert {item["name"] for item in found["items"]} == {"admin", "operator"}


def test_it_does_not_speak_plain_http_to_the_network(made: tuple[Path, dict[str, str]]) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):  # noqa: S104 -- has to be refused
        done = run("serve", "--dir", str(made[0]), "--host", host)
        assert done.returncode == 2
        assert "--tls" in done.stderr


def test_what_is_missing_or_unsafe_is_named(made: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    nothing = run("serve", "--dir", str(tmp_path))
    assert nothing.returncode == 4
    assert "cafe-sbs init" in nothing.stderr
    wrong = run("serve", "--dir", str(made[0]), CAFE_SBS_LEASE_SECONDS="0")
    assert wrong.returncode == 4
    assert "CAFE_SBS_LEASE_SECONDS" in wrong.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run("serve", "--dir", str(made[0]), "--port", port).returncode != 0
