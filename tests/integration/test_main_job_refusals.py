"""What must be refused, against live processes: each with its status, and nothing released."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from agent_site import OTHER_VM, VM, Agent, Built, Guest, Site, expect_soon

REFUSED, LICENCE, REVOKED, TRANSPORT = 9, 10, 14, 15


@pytest.fixture
def licence(site: Site, probe: Built) -> str:
    return site.license(probe)


def call(agent: Agent, probe: Built, vm: str = VM) -> tuple[int, int]:
    guest = Guest(probe.program, agent.sockets[vm])
    try:
        return guest.call("echo")
    finally:
        guest.end()


def test_no_licence(any_agent: Agent, probe: Built, licence: str) -> None:
    assert licence
    assert call(any_agent, probe, OTHER_VM) == (-1, LICENCE)
    assert call(any_agent, probe, VM) == (7, 0)


@pytest.mark.case("A35")
def test_an_extended_pcr(any_agent: Agent, site: Site, probe: Built, licence: str) -> None:
    assert licence
    assert call(any_agent, probe) == (7, 0)
    site.extend_pcr()
    assert call(any_agent, probe) == (-1, REFUSED)
    site.allow_present_pcrs()
    assert call(any_agent, probe) == (7, 0)


@pytest.mark.case("C01")
def test_a_flipped_byte_in_the_store(any_agent: Agent, site: Site, probe: Built, licence: str) -> None:
    assert licence
    chunks = {path: path.read_bytes() for path in site.stored_chunks()}
    assert chunks
    for path, data in chunks.items():
        path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    assert call(any_agent, probe) == (-1, REFUSED)
    assert not any_agent.seen("enclave")
    for path, data in chunks.items():
        path.write_bytes(data)
    assert call(any_agent, probe) == (7, 0)


def test_an_sbs_that_is_gone_ends_the_enclave_with_its_lease(
    any_agent: Agent, site: Site, probe: Built, licence: str
) -> None:
    assert licence
    guest = Guest(probe.program, any_agent.sockets[VM])
    assert guest.call("echo") == (7, 0)
    site.stop_sbs()
    try:
        expect_soon(lambda: any_agent.seen("enclave", status="revoked"), "the lease ran out", 12)
        assert guest.call("echo") == (-1, TRANSPORT)
    finally:
        site.start_sbs()
    assert guest.call("echo") == (7, 0)
    guest.end()


def test_an_unknown_host_key_opens_no_session(site: Site, probe: Built) -> None:
    state = site.folder / "agent"
    good = (state / "host_key").read_bytes()
    (state / "host_key").write_bytes(b"k" * 32)
    try:
        with site.running_agent("auto") as agent:
            assert call(agent, probe) == (-1, REFUSED)
    finally:
        (state / "host_key").write_bytes(good)


def end_while_running(agent: Agent, probe: Built, revoke: Callable[[], object]) -> tuple[int, int]:
    """Begin a call that never returns, revoke, and return what a second call gives."""
    guest = Guest(probe.program, agent.sockets[VM])
    try:
        assert guest.call("echo") == (7, 0)
        guest.begin("forever")
        time.sleep(0.3)
        start = time.monotonic()
        revoke()
        assert guest.result(5) == (-1, REVOKED)
        assert time.monotonic() - start < 2
        expect_soon(lambda: agent.seen("enclave", state="ended", status="revoked"), "the enclave has ended")
        return guest.call("echo")
    finally:
        guest.end()


def test_a_licence_revoked_while_running(any_agent: Agent, site: Site, probe: Built, licence: str) -> None:
    def revoke() -> None:
        for issued in site.client("marketplace").licences():
            site.revoke(str(issued["id"]))

    assert licence
    assert end_while_running(any_agent, probe, revoke) == (-1, LICENCE)


def test_a_vm_removed_while_running(any_agent: Agent, site: Site, probe: Built, licence: str) -> None:
    assert licence
    status = end_while_running(any_agent, probe, lambda: site.client("operator").remove_vm(VM))
    assert status[0] == -1
    site.register_vm(VM)
    assert call(any_agent, probe) == (7, 0)


def test_a_release_revoked_while_running(any_agent: Agent, site: Site, probe: Built, licence: str) -> None:
    assert licence
    revoke = lambda: site.client("publisher").revoke_release(probe.release_id)  # noqa: E731 - short, used once
    assert end_while_running(any_agent, probe, revoke)[0] == -1


def test_a_host_revoked_while_running(any_agent: Agent, site: Site, totp: Built, probe: Built) -> None:
    """The last test of this file: the host is of no more use."""
    assert site.license(totp)
    guest = Guest(totp.program, any_agent.sockets[VM], "batch")
    assert guest.line("code rfc6238 -t 59 -d 8") == "94287082"
    site.client("operator").revoke_host(site.host_id)
    expect_soon(lambda: any_agent.seen("enclave", state="ended", status="revoked"), "the enclave has ended")
    guest.end()
    assert call(any_agent, probe) == (-1, REFUSED)
