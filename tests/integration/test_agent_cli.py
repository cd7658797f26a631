"""`cafe-agent` as an operator uses it, with a real swtpm: what it prints, and its exit codes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from cafe_lib.evidence.policy import parse_policy

PROGRAM = Path(sys.executable).parent / "cafe-agent"
ROOT_KEY = "ab" * 32


class Software(Protocol):
    tcti: str


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(swtpm: Software) -> Run:
    def start(*arguments: str, tcti: str = swtpm.tcti) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/bin:/bin", "CAFE_AGENT_TCTI": tcti}
        return subprocess.run(
            [PROGRAM, *arguments], capture_output=True, text=True, env=environment, timeout=60, check=False
        )

    return start


def test_the_ek_digest_is_64_hex_digits_and_stays(run: Run) -> None:
    plain = run("ek").stdout.strip()
    assert len(bytes.fromhex(plain)) == 32
    assert json.loads(run("ek", "--json").stdout) == {"ek": plain}


def test_measuring_extends_once_and_the_policy_says_so(run: Run) -> None:
    first = json.loads(run("measure", "--json").stdout)
    again = json.loads(run("measure", "--json").stdout)
    assert first == again
    assert first["value"] == hashlib.sha256(bytes(32) + bytes.fromhex(first["measurement"])).hexdigest()
    policy = run("pcrs").stdout
    assert json.loads(policy)["pcrs"] == {"pcr14": {"alg": "sha256", "index": 14, "values": [first["value"]]}}
    assert parse_policy(policy.encode()).version == 1


def test_the_launcher_measures_then_becomes_the_agent(run: Run) -> None:
    done = run("measure", "--", "pcrs", "--pcr", "14")
    assert done.returncode == 0, done.stderr
    (value,) = json.loads(done.stdout)["pcrs"]["pcr14"]["values"]
    assert value != "00" * 32


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        pytest.param(("run", "--state", "/nowhere", "--vm", "v"), 4, "cafe-agent enrol", id="not enrolled"),
        pytest.param(("run", "--state", "/nowhere", "--vm", "../v"), 4, "not a VM id", id="bad VM id"),
        pytest.param(
            ("run", "--state", "/nowhere", "--vm", "v", "--backend", "x"), 2, "backend", id="backend"
        ),
        pytest.param(
            (
                "enrol",
                "--sbs",
                "http://127.0.0.1:1",
                "--sbs-root",
                "ab",
                "--name",
                "h",
                "--state",
                "/nowhere/x",
            ),
            2,
            "64 hex",
            id="short root key",
        ),
        pytest.param(
            (
                "enrol",
                "--sbs",
                "http://sbs.example",
                "--sbs-root",
                ROOT_KEY,
                "--name",
                "h",
                "--state",
                "/nowhere/x",
            ),
            2,
            "plain HTTP",
            id="plain HTTP to another machine",
        ),
        pytest.param(("measure", "--pcr", "77"), 4, "PCR", id="no such PCR"),
        pytest.param(("no-such-command",), 2, "No such command", id="no such command"),
    ],
)
def test_errors_have_an_exit_code_and_say_what_to_do(
    run: Run, arguments: tuple[str, ...], code: int, says: str
) -> None:
    done = run(*arguments)
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_an_sbs_that_is_not_there(run: Run, tmp_path: Path) -> None:
    done = run(
        "enrol", "--sbs", "http://127.0.0.1:1", "--sbs-root", ROOT_KEY, "--name", "h", "--state",
        str(tmp_path / "state"),
    )  # fmt: skip
    assert done.returncode == 3
    assert not (tmp_path / "state" / "agent.json").exists()


def test_a_tpm_that_is_not_there(run: Run) -> None:
    done = run("ek", tcti="swtpm:path=/nowhere")
    assert done.returncode == 4
    assert "is the TPM there" in done.stderr
