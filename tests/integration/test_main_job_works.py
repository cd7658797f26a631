"""The main job with real parts throughout: an attested host, a real grant, secret code that is called."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from agent_site import VM, Agent, Built, Guest, Site, alive, expect_soon

RFC6238 = (  # appendix B
    (59, "94287082", "46119246", "90693936"),
    (1111111109, "07081804", "68084774", "25091201"),
    (1111111111, "14050471", "67062674", "99943326"),
    (1234567890, "89005924", "91819424", "93441116"),
    (2000000000, "69279037", "90698825", "38618901"),
    (20000000000, "65353130", "77737706", "47863826"),
)
DEPLOYMENT, LOADING = (1, 2, 3, 5, 6, 9), (1, 2, 3, 4, 5)


def run_totp(totp: Built, address: Path, lines: list[str]) -> list[str]:
    done = subprocess.run(
        [totp.program, "batch"],
        input="".join(line + "\n" for line in lines),
        env={**os.environ, "CAFE_SOCKET": str(address)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module", autouse=True)
def licences(site: Site, totp: Built, probe: Built) -> dict[str, str]:
    return {built.name: site.license(built) for built in (totp, probe)}


def test_every_value_of_the_rfc_comes_out_of_the_enclave(agent: Agent, totp: Built) -> None:
    lines, expected = [], []
    for time_, *codes in RFC6238:
        for hash_, code in zip(("sha1", "sha256", "sha512"), codes, strict=True):
            lines.append(f"code rfc6238 -t {time_} -a {hash_} -d 8")
            expected.append(code)
    assert run_totp(totp, agent.sockets[VM], lines) == expected


def test_the_agent_tells_the_papers_steps_in_order(any_agent: Agent, totp: Built) -> None:
    run_totp(totp, any_agent.sockets[VM], ["code rfc6238 -t 59 -d 8"])
    steps = [event for event in any_agent.events if event["event"] == "step"]
    assert tuple(event["step"] for event in steps if event["phase"] == "deployment") == DEPLOYMENT
    assert tuple(event["step"] for event in steps if event["phase"] == "loading") == LOADING
    assert all(event["ms"] >= 0 and event["by"] == "agent" for event in steps)
    assert [event["at"] for event in steps] == sorted(event["at"] for event in steps)


def test_a_second_program_needs_no_second_attestation(any_agent: Agent, totp: Built) -> None:
    for _ in range(2):
        run_totp(totp, any_agent.sockets[VM], ["code rfc6238 -t 59 -d 8"])
    quotes = [
        event for event in any_agent.events if event.get("step") == 5 and event["phase"] == "deployment"
    ]
    assert len(quotes) == 1


def test_a_seat_is_given_back_when_the_program_ends(
    any_agent: Agent, site: Site, probe: Built, licences: dict[str, str]
) -> None:
    guest = Guest(probe.program, any_agent.sockets[VM])
    assert guest.call("echo") == (7, 0)
    assert site.seats_used(licences["agent-probe"]) == 1
    guest.end()
    expect_soon(lambda: site.seats_used(licences["agent-probe"]) == 0, "the seat is free")


def test_a_lease_is_renewed_while_the_program_runs(any_agent: Agent, site: Site, probe: Built) -> None:
    guest = Guest(probe.program, any_agent.sockets[VM])
    assert guest.call("echo") == (7, 0)
    expect_soon(lambda: any_agent.seen("renewal", leases=1), "the lease was renewed", 10)
    time.sleep(5)  # past the end of the first lease
    assert guest.call("echo") == (7, 0)
    guest.end()


def test_the_processes_of_a_vm_share_one_enclave_and_one_seat(
    any_agent: Agent, site: Site, probe: Built, licences: dict[str, str]
) -> None:
    guests = [Guest(probe.program, any_agent.sockets[VM]) for _ in range(3)]
    for guest in guests:
        guest.begin("echo")
    assert [guest.result() for guest in guests] == [(7, 0)] * 3
    assert site.seats_used(licences["agent-probe"]) == 1
    for guest in guests[:2]:
        guest.end()
    assert guests[2].call("echo") == (7, 0)
    assert site.seats_used(licences["agent-probe"]) == 1
    assert not any_agent.seen("enclave", state="ended")
    guests[2].end()
    expect_soon(lambda: site.seats_used(licences["agent-probe"]) == 0, "the seat is free")
    expect_soon(lambda: any_agent.seen("enclave", state="ended", status="exited"), "the enclave has ended")


@pytest.mark.case("B16")
def test_a_fault_is_one_calls_error_and_the_next_call_works(
    agent: Agent, site: Site, probe: Built, totp: Built, licences: dict[str, str]
) -> None:
    guest, other = (Guest(probe.program, agent.sockets[VM]) for _ in range(2))
    stranger = Guest(totp.program, agent.sockets[VM], "batch")
    assert guest.call("echo") == other.call("echo") == (7, 0)
    assert stranger.line("code rfc6238 -t 59 -d 8") == "94287082"
    pids = set(agent.children())
    assert guest.call("fault") == (-1, 4)
    assert guest.call("echo") == (7, 0)
    assert other.call("echo") == (7, 0)
    expect_soon(lambda: agent.count("enclave", state="replaced") == 1, "one fresh enclave serves both")
    assert site.seats_used(licences["agent-probe"]) == 1
    assert stranger.line("code rfc6238 -t 59 -d 8") == "94287082"
    assert any(alive(pid) for pid in pids), "the other release's enclave was left alone"
    for each in (guest, other, stranger):
        each.end()


@pytest.mark.case("B16")
def test_a_crash_is_reported_and_the_standby_takes_over(any_agent: Agent, probe: Built) -> None:
    guest = Guest(probe.program, any_agent.sockets[VM])
    assert guest.call("echo") == (7, 0)
    expect_soon(lambda: any_agent.seen("standby", state="ready"), "there is a standby")
    assert guest.call("fault") == (-1, 4)
    assert guest.call("echo") == (7, 0)
    expect_soon(lambda: any_agent.count("standby", state="used") == 1, "the standby was used")
    expect_soon(lambda: any_agent.seen("crash"), "the crash is reported")
    (report,) = [event for event in any_agent.events if event["event"] == "crash"]
    assert report["build_id"] == probe.release_id
    assert 0 < int(report["offset"], 16) < 1 << 20
    assert set(report) == {"event", "build_id", "offset", "kind", "release", "vm", "at", "by"}
    assert (report["kind"][0], report["release"], report["vm"]) == ("#", "acme/agent-probe@1", VM)
    guest.end()


def test_sigterm_ends_everything(site: Site, probe: Built, licences: dict[str, str]) -> None:
    with site.running_agent("auto") as agent:
        guest = Guest(probe.program, agent.sockets[VM])
        assert guest.call("echo") == (7, 0)
        pids = agent.children()
        assert pids
        agent.end()
        assert agent.process.returncode == 0
        assert not any(alive(pid) for pid in pids)
        assert not any(path.exists() for path in agent.sockets.values())
        assert guest.call("echo")[0] == -1
        guest.end()
    assert site.seats_used(licences["agent-probe"]) == 0
