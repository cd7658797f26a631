"""Real processes for the integration tests: each ends with its fixture, by its handle."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from agent_site import Agent, Built, Site, answers, end, expect_soon

from cafe_lib.toolchain.keys import PublisherIdentity, create_publisher


@dataclass(frozen=True)
class SoftwareTpm:
    """A swtpm process and the TCTI string that reaches it."""

    tcti: str
    process: subprocess.Popen[bytes]


def start_swtpm(directory: Path) -> SoftwareTpm:
    """Start swtpm on ``directory``'s state; the TCTI library wants the control socket beside the other."""
    (directory / "state").mkdir(exist_ok=True)
    address = directory / "tpm"
    command = [
        "swtpm", "socket", "--tpm2",
        "--tpmstate", f"dir={directory / 'state'}",
        "--server", f"type=unixio,path={address}",
        "--ctrl", f"type=unixio,path={address}.ctrl",
        "--flags", "startup-clear",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        expect_soon(lambda: answers(str(address)), "swtpm answers")
    except BaseException:
        end(process)
        raise
    return SoftwareTpm(f"swtpm:path={address}", process)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Give a directory with a path short enough for UNIX sockets."""
    with tempfile.TemporaryDirectory(prefix="cafe-") as directory:
        yield Path(directory)


@pytest.fixture
def swtpm(short_path: Path) -> Iterator[SoftwareTpm]:
    tpm = start_swtpm(short_path)
    yield tpm
    end(tpm.process)


@pytest.fixture
def restarted_swtpm(short_path: Path, swtpm: SoftwareTpm) -> Iterator[SoftwareTpm]:
    """Give the same TPM after a reset: same seeds, no loaded keys, PCRs as at power-on."""
    end(swtpm.process)
    tpm = start_swtpm(short_path)
    yield tpm
    end(tpm.process)


# ---------------------------------------------------------------------- the whole site

ROOT = Path(__file__).resolve().parents[2]
SECRETS = Path(__file__).resolve().parent / "secrets"


@pytest.fixture(scope="session")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PublisherIdentity]:
    directory = tmp_path_factory.mktemp("publisher") / "identity"
    return directory, create_publisher(directory)


def build(project: Path, publisher: Path, output: Path, name: str) -> Built:
    """Run `cafe build` and compile main.c against what it made."""
    cafe = Path(sys.executable).parent / "cafe"
    subprocess.run(
        [cafe, "build", project, "--publisher", publisher, "--output", output, "--json"],
        check=True,
        capture_output=True,
    )
    program = output / "program"
    subprocess.run(
        [
            "gcc",
            "-O2",
            f"-I{output}/include",
            project / "main.c",
            output / f"lib{name}.a",
            "-pthread",
            "-o",
            program,
        ],
        check=True,
    )
    return Built(output / f"{name}.cafe", program, name)


@pytest.fixture(scope="session")
def totp(publisher: tuple[Path, PublisherIdentity], tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Give the example of the project, built."""
    return build(ROOT / "examples" / "totp", publisher[0], tmp_path_factory.mktemp("totp"), "totp")


@pytest.fixture(scope="session")
def probe(publisher: tuple[Path, PublisherIdentity], tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Give a program whose calls can hang or fault, built."""
    return build(SECRETS / "agent_probe", publisher[0], tmp_path_factory.mktemp("probe"), "agent-probe")


@pytest.fixture(scope="module")
def site(publisher: tuple[Path, PublisherIdentity], totp: Built, probe: Built) -> Iterator[Site]:
    """Give a site with an enrolled host, both programs pushed and no licence; leases last six seconds."""
    with tempfile.TemporaryDirectory(prefix="cafe-") as directory, ExitStack() as ending:
        folder = Path(directory)
        tpm = start_swtpm(folder)
        ending.callback(end, tpm.process)
        made = Site(
            folder,
            tpm.tcti,
            publisher[1],
            {"CAFE_SBS_LEASE_SECONDS": "6", "CAFE_SBS_LEASE_MARGIN_SECONDS": "1"},
        )
        ending.callback(made.close)
        made.enrol()
        for built in (totp, probe):
            made.publish(built)
        yield made


def _backends() -> list[object]:
    missing = pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="there is no /dev/kvm")
    return [pytest.param("kvm", marks=missing), "emulator"]


@pytest.fixture(params=_backends())
def agent(site: Site, request: pytest.FixtureRequest) -> Iterator[Agent]:
    """Give a running agent, on each backend."""
    with site.running_agent(request.param) as running:
        yield running


@pytest.fixture
def any_agent(site: Site) -> Iterator[Agent]:
    """Give a running agent on the backend this machine is best at."""
    with site.running_agent("auto") as running:
        yield running
