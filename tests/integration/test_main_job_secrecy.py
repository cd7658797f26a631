"""D02 to D06: a pattern planted in the secret code is looked for wherever it must not be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from agent_site import VM, Agent, Built, Guest, Site, memory_of

from cafe_lib.image.confidential import parse_confidential
from cafe_lib.image.package import open_package, unwrap_confidential
from cafe_lib.toolchain.keys import PublisherIdentity
from hypervisor_agent.abi import CHANNEL_MAGIC

PLANTED = bytes.fromhex("d51e778a03f942b66c902de1583bc714a409fe61b327cd5a8538f01c9b66d24f")
MASKED = bytes(byte ^ 0x5A for byte in PLANTED)
CONTROL = b"the public program's control pattern"


@dataclass(frozen=True)
class Search:
    """What is searched for: the planted bytes in pieces, and the keys that decrypt them; raw and as hex."""

    planted: tuple[bytes, ...]
    keys: tuple[bytes, ...]

    def found(self, data: bytes) -> list[str]:
        wanted = {"planted": self.planted, "chunk key": self.keys}
        return [
            what
            for what, pieces in wanted.items()
            if any(piece in data or piece.hex().encode() in data.lower() for piece in pieces)
        ]


@pytest.fixture(scope="module")
def search(probe: Built, publisher: tuple[Path, PublisherIdentity]) -> Search:
    package = open_package(probe.package)
    confidential = parse_confidential(unwrap_confidential(publisher[1].secret, package.cose, package.blob))
    return Search(tuple(PLANTED[i : i + 8] for i in range(0, 25, 4)), confidential.keys)


@pytest.fixture
def used(agent: Agent, site: Site, probe: Built) -> Iterator[Guest]:
    """Give a guest that has called the function that works on the planted bytes."""
    site.license(probe)
    guest = Guest(probe.program, agent.sockets[VM])
    assert guest.call("secret") == (32, 0)
    yield guest
    guest.end()


def files_below(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


@pytest.mark.case("D02")
def test_the_wire(used: Guest, site: Site, search: Search, probe: Built) -> None:
    wire = bytes(site.recorder.sent) + bytes(site.recorder.received)
    chunk = next(open_package(probe.package).chunks())
    assert chunk[:4096] in wire, "the recording holds the release, encrypted"
    assert search.found(wire) == []
    assert used.call("echo") == (7, 0)


@pytest.mark.case("D03", "D04")
def test_the_guests_memory_channel_and_disk(used: Guest, search: Search, probe: Built) -> None:
    channel = list(memory_of(used.process.pid, "cafe-channel"))
    assert any(CHANNEL_MAGIC.to_bytes(8, "little") in piece for piece in channel), "the channel is looked at"
    assert [search.found(piece) for piece in channel if search.found(piece)] == []
    memory = list(memory_of(used.process.pid))
    assert any(CONTROL in piece for piece in memory)
    assert any(MASKED in piece for piece in memory), "the result crossed the channel"
    assert [search.found(piece) for piece in memory if search.found(piece)] == []
    for path in (probe.program, *probe.program.parent.glob("lib*")):
        assert search.found(path.read_bytes()) == [], path


@pytest.mark.case("D03")
def test_the_enclave_does_hold_it(used: Guest, agent: Agent) -> None:
    assert used.call("echo") == (7, 0)
    if os.geteuid():  # whoever runs the agent may not look into its enclaves; only root may
        for pid in agent.children():
            with pytest.raises(PermissionError):
                list(memory_of(pid))
        return
    holders = [pid for pid in agent.children() if any(PLANTED in piece for piece in memory_of(pid))]
    assert 1 <= len(holders) <= 2, "the same search finds it where it must be: in the enclave and its standby"


@pytest.mark.case("D05")
def test_the_sbs_disk_and_logs(used: Guest, site: Site, search: Search) -> None:
    assert used.call("echo") == (7, 0)
    seen = 0
    for path, data in [*files_below(site.folder / "sbs"), *files_below_logs(site)]:
        assert search.found(data) == [], path
        seen += 1
    assert seen > 2


def files_below_logs(site: Site) -> list[tuple[Path, bytes]]:
    return [(path, path.read_bytes()) for path in site.folder.glob("*.log")]


@pytest.mark.case("D06")
def test_the_agents_memory_disk_and_logs(used: Guest, agent: Agent, site: Site, search: Search) -> None:
    assert used.call("fault") == (-1, 4)
    for path, data in [*files_below(site.folder / "agent"), *files_below_logs(site)]:
        assert search.found(data) == [], path
    assert search.found(repr(agent.events).encode()) == []
    found = [search.found(piece) for piece in memory_of(agent.process.pid)]
    assert any("chunk key" in what for what in found), "the same search finds what the agent may hold"
    assert not any("planted" in what for what in found)


@pytest.mark.case("D06")
def test_nobody_who_holds_secrets_leaves_a_core(used: Guest, agent: Agent) -> None:
    assert used.call("echo") == (7, 0)
    for pid in (agent.process.pid, *agent.children()):
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        core = next(line for line in limits if line.startswith("Max core file size"))
        assert core.split()[4:6] == ["0", "0"], pid
