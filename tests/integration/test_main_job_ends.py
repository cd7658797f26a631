"""B17: whoever is killed in mid-call, the others learn it within a second, and nothing stays behind."""

from __future__ import annotations

import signal
import time
from collections import Counter

import pytest
from agent_site import VM, Agent, Built, Guest, Site, alive, cpu_ticks, expect_soon, stop_hard

from hypervisor_agent.service import GIVE_BACK_SECONDS

AGENT, EXITED, DEADLINE = 8, 6, 5
pytestmark = pytest.mark.case("B17")


@pytest.fixture(scope="module", autouse=True)
def licence(site: Site, probe: Built) -> str:
    return site.license(probe)


def busiest(pids: list[int]) -> int:
    """Give the process that has used the most CPU time: the one whose call never returns."""
    return max(pids, key=cpu_ticks)


@pytest.fixture
def caught(agent: Agent, probe: Built) -> Guest:
    """Give a guest in the middle of a call that never returns."""
    guest = Guest(probe.program, agent.sockets[VM])
    assert guest.call("echo") == (7, 0)
    guest.begin("forever")
    time.sleep(0.5)
    return guest


def test_the_agent_is_killed(agent: Agent, caught: Guest) -> None:
    pids = agent.children()
    start = time.monotonic()
    stop_hard(agent.process.pid)
    assert caught.result(5) == (-1, AGENT)
    assert time.monotonic() - start < 1
    agent.process.wait(5)
    expect_soon(lambda: not any(alive(pid) for pid in pids), "its VMMs are gone", 1)
    caught.end()


def test_the_vmm_is_killed(agent: Agent, caught: Guest) -> None:
    start = time.monotonic()
    stop_hard(busiest(agent.children()))
    assert caught.result(5) == (-1, EXITED)
    assert time.monotonic() - start < 1
    assert caught.call("echo") == (7, 0)
    caught.end()


def test_the_vmm_of_two_guests_is_killed(agent: Agent, caught: Guest, probe: Built) -> None:
    other = Guest(probe.program, agent.sockets[VM])
    other.begin("forever")  # waits for the vCPU, or has one of its own
    time.sleep(1)
    stop_hard(busiest(agent.children()))
    assert caught.result(5) == other.result(5) == (-1, EXITED)
    assert caught.call("echo") == other.call("echo") == (7, 0)
    expect_soon(lambda: agent.count("enclave", state="replaced") == 1, "one fresh enclave serves both")
    caught.end()
    other.end()


def test_the_guest_is_killed(agent: Agent, caught: Guest, site: Site, licence: str) -> None:
    pid = busiest(agent.children())
    start = time.monotonic()
    stop_hard(caught.process.pid)
    expect_soon(lambda: not alive(pid), "its enclave is gone", 1)
    assert time.monotonic() - start < 1
    expect_soon(lambda: site.seats_used(licence) == 0, "its seat is free")
    caught.end()


def test_one_of_two_guests_is_killed(any_agent: Agent, probe: Built, site: Site, licence: str) -> None:
    killed, other = (Guest(probe.program, any_agent.sockets[VM]) for _ in range(2))
    assert killed.call("echo") == other.call("echo") == (7, 0)
    stop_hard(killed.process.pid)
    killed.end()
    for _ in range(20):
        assert other.call("echo") == (7, 0)
    assert site.seats_used(licence) == 1
    assert not any_agent.seen("enclave", state="ended"), "the other's enclave was left alone"
    other.end()
    expect_soon(lambda: site.seats_used(licence) == 0, "the last one's end frees the seat")


def test_nothing_is_left_of_many_ends(any_agent: Agent, probe: Built, site: Site, licence: str) -> None:
    def round_trip(how: int) -> None:
        guest = Guest(probe.program, any_agent.sockets[VM])
        assert guest.call("echo") == (7, 0)
        if how == 1:
            assert guest.call("fault")[0] == -1
        if how == 2:
            stop_hard(guest.process.pid)
        guest.end()

    def settled() -> bool:
        return site.seats_used(licence) == 0 and len(any_agent.children()) <= 1

    round_trip(0)
    expect_soon(settled, "the first round is over")
    before = any_agent.descriptors()
    for how in (0, 1, 2) * 3:
        round_trip(how)
    expect_soon(settled, "all enclaves are gone")
    more = Counter(any_agent.descriptors()) - Counter(before)
    assert set(more) <= {"socket"}
    assert more["socket"] <= 3, "what the HTTP client keeps open, not one for each end"
    assert not any("memfd" in name for name in any_agent.descriptors())


def test_a_seat_of_a_killed_agent_is_free_when_its_lease_has_run_out(
    site: Site, probe: Built, licence: str
) -> None:
    with site.running_agent("auto") as agent:
        guest = Guest(probe.program, agent.sockets[VM])
        assert guest.call("echo") == (7, 0)
        stop_hard(agent.process.pid)
        assert site.seats_used(licence) == 1
        guest.end()
    expect_soon(lambda: site.seats_used(licence) == 0, "the lease ran out", 20)


def test_an_sbs_that_does_not_answer_does_not_hold_up_the_agents_end(
    site: Site, probe: Built, licence: str
) -> None:
    with site.running_agent("auto") as agent:
        guest = Guest(probe.program, agent.sockets[VM])
        assert guest.call("echo") == (7, 0)
        pids = agent.children()
        site.sbs.send_signal(signal.SIGSTOP)
        try:
            agent.process.send_signal(signal.SIGTERM)
            expect_soon(
                lambda: not any(alive(pid) for pid in pids), "its VMMs are gone", 2 * GIVE_BACK_SECONDS
            )
            assert agent.process.wait(2 * GIVE_BACK_SECONDS) == 0
        finally:
            site.sbs.send_signal(signal.SIGCONT)
            guest.end()
    expect_soon(lambda: site.seats_used(licence) == 0, "the lease ran out", 20)
