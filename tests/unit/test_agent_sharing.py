"""Several guest processes of one VM on one enclave: what they share, what a crash or an end costs others."""

from __future__ import annotations

import asyncio
import json

import pytest
from agent_enclaves import OFFSET, REQUEST, World, expect_soon, run
from agent_sbs import LEASE_ID

from cafe_lib import errors
from hypervisor_agent import graves, tenancy
from hypervisor_agent.abi import Status
from hypervisor_agent.guests.messages import LaunchRequest


def events(world: World, kind: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in world.output.getvalue().splitlines()]
    return [line for line in lines if line["event"] == kind]


def test_two_processes_share_one_enclave_and_one_seat() -> None:
    async def scenario(world: World) -> None:
        first = await world.host.launch("vm1", REQUEST)
        second = await world.host.launch("vm1", REQUEST)
        assert first.channel_fd != second.channel_fd, "neither sees the other's arguments"
        assert len(world.enclaves[0].channels) == 2
        await world.host.end(first)
        assert world.ended == []
        assert [channel.closed for channel in world.channels] == [True, False]
        assert world.channels[0].status is Status.EXITED
        assert list(world.enclaves[0].channels.values()) == [world.channels[1]]
        await world.host.end(second)

    world = run(scenario)
    assert len(world.orders) == 1
    assert len(world.enclaves) == 1
    assert world.ended == [LEASE_ID]


def test_first_launches_at_the_same_time_wait_for_one_deployment() -> None:
    async def scenario(world: World) -> None:
        world.go.clear()
        launches = [asyncio.create_task(world.host.launch("vm1", REQUEST)) for _ in range(4)]
        await asyncio.sleep(0.05)
        world.go.set()
        members = await asyncio.gather(*launches)
        assert len({member.channel_fd for member in members}) == 4

    world = run(scenario)
    assert len(world.orders) == 1
    assert world.ended == [LEASE_ID]


@pytest.mark.parametrize(
    ("vm", "request_"),
    [
        pytest.param("vm2", REQUEST, id="another VM"),
        pytest.param("vm1", LaunchRequest(1, b"x" * 32, b"i" * 32), id="another release"),
        pytest.param("vm1", LaunchRequest(1, b"r" * 32, b"x" * 32), id="another interface"),
    ],
)
def test_nothing_else_is_shared(vm: str, request_: LaunchRequest) -> None:
    async def scenario(world: World) -> None:
        await world.host.launch("vm1", REQUEST)
        await world.host.launch(vm, request_)
        assert [len(enclave.channels) for enclave in world.enclaves] == [1, 1]

    assert len(run(scenario).ended) == 2


@pytest.mark.case("B17")
def test_the_deployment_goes_on_for_others_when_the_first_process_goes() -> None:
    async def scenario(world: World) -> None:
        world.go.clear()
        first = asyncio.create_task(world.host.launch("vm1", REQUEST))
        await asyncio.sleep(0.02)
        second = asyncio.create_task(world.host.launch("vm1", REQUEST))
        await asyncio.sleep(0.02)
        first.cancel()
        await asyncio.wait({first})
        assert world.cancelled is not None
        assert not world.cancelled.is_set()
        world.go.set()
        assert (await second).channel_fd

    assert len(run(scenario).orders) == 1


@pytest.mark.case("B17")
def test_a_deployment_that_nobody_waits_for_is_undone_and_not_joined() -> None:
    async def scenario(world: World) -> None:
        world.go.clear()
        launches = [asyncio.create_task(world.host.launch("vm1", REQUEST)) for _ in range(2)]
        await asyncio.sleep(0.02)
        for launch in launches:
            launch.cancel()
        await asyncio.sleep(0.02)
        late = asyncio.create_task(world.host.launch("vm1", REQUEST))
        await asyncio.sleep(0.02)
        world.go.set()
        await asyncio.wait(launches)
        assert (await late).channel_fd

    world = run(scenario)
    assert len(world.orders) == 2
    assert len(world.enclaves) == 1


def test_a_program_that_is_started_again_waits_for_the_seat_it_has_left() -> None:
    async def scenario(world: World) -> None:
        member = await world.host.launch("vm1", REQUEST)
        world.end_go.clear()
        ending = asyncio.create_task(world.host.end(member))
        await asyncio.sleep(0.05)
        again = asyncio.create_task(world.host.launch("vm1", REQUEST))
        await world.host.launch("vm2", REQUEST)  # others do not wait
        assert [order.vm_id for order in world.orders] == ["vm1", "vm2"]
        world.end_go.set()
        await asyncio.gather(ending, again)

    assert len(run(scenario).orders) == 3


def test_a_refusal_is_told_to_all_who_wait_and_the_next_launch_asks_again() -> None:
    async def scenario(world: World) -> None:
        world.go.clear()
        world.deploy_error = errors.LicenceError("no free seat")
        launches = [asyncio.create_task(world.host.launch("vm1", REQUEST)) for _ in range(3)]
        await asyncio.sleep(0.02)
        world.go.set()
        for result in await asyncio.gather(*launches, return_exceptions=True):
            assert isinstance(result, errors.LicenceError)
        world.deploy_error = None
        await world.host.launch("vm1", REQUEST)

    assert len(run(scenario).orders) == 1


@pytest.mark.case("B16")
def test_a_crash_is_told_to_both_and_one_replacement_serves_both() -> None:
    async def scenario(world: World) -> None:
        members = [await world.host.launch("vm1", REQUEST) for _ in range(2)]
        descriptors = [member.channel_fd for member in members]
        world.enclaves[0].fault()
        assert [channel.status for channel in world.channels] == [Status.FAULT] * 2
        await asyncio.gather(*(world.host.rejoin(member) for member in members))
        assert [member.channel_fd for member in members] == descriptors, "their memory stays valid"
        assert [channel.status for channel in world.channels] == [None, None]
        assert len(world.enclaves[1].channels) == 2
        await asyncio.sleep(3 * graves.PAUSE_SECONDS)
        assert world.enclaves[0].destroyed is Status.FAULT
        assert [channel.status for channel in world.channels] == [None, None], "the burial tells nobody again"

    world = run(scenario, restarts=1)
    assert len(world.enclaves) == 2
    assert world.ended == [LEASE_ID]


@pytest.mark.case("B16")
def test_a_process_that_launches_after_a_crash_has_it_replaced() -> None:
    async def scenario(world: World) -> None:
        first = await world.host.launch("vm1", REQUEST)
        world.enclaves[0].fault()
        second = await world.host.launch("vm1", REQUEST)
        assert list(world.enclaves[1].channels.values()) == [world.channels[1]]
        await world.host.rejoin(first)
        assert first.channel_fd != second.channel_fd

    assert len(run(scenario, restarts=1).enclaves) == 2


@pytest.mark.case("B16")
def test_a_guest_may_ask_before_the_vmm_has_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tenancy, "LAST_WORD_SECONDS", 5)

    async def scenario(world: World) -> None:
        member = await world.host.launch("vm1", REQUEST)
        fd = member.channel_fd
        world.enclaves[0].fault(report=False)
        again = asyncio.create_task(world.host.rejoin(member))
        await asyncio.sleep(0.1)
        world.enclaves[0].report()
        await again
        assert member.channel_fd == fd, "it was a crash, not a channel given up"

    assert len(run(scenario).channels) == 1


@pytest.mark.case("B17")
def test_an_enclave_that_ends_during_an_attachment_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tenancy, "has_news", lambda _: False)

    async def scenario(world: World) -> None:
        await world.host.launch("vm1", REQUEST)
        world.enclaves[0].fault(report=False)
        await world.host.launch("vm1", REQUEST)
        assert len(world.enclaves[1].channels) == 1

    run(scenario)


@pytest.mark.case("B17")
def test_a_process_too_many_is_refused_and_harms_nobody() -> None:
    async def scenario(world: World) -> None:
        members = [await world.host.launch("vm1", REQUEST) for _ in range(2)]
        with pytest.raises(errors.LimitError) as caught:
            await world.host.launch("vm1", REQUEST)
        assert "no place for another process" in caught.value.hint
        assert world.channels[2].closed
        assert all(member.channel_fd for member in members)
        await world.host.end(members[0])
        await world.host.launch("vm1", REQUEST)

    world = run(scenario, regions=2)
    assert len(world.orders) == 1


def test_after_a_revocation_one_fresh_launch_serves_all() -> None:
    async def scenario(world: World) -> None:
        members = [await world.host.launch("vm1", REQUEST) for _ in range(2)]
        world.revoke()
        await expect_soon(lambda: world.ended == [LEASE_ID])
        assert [channel.status for channel in world.channels] == [Status.REVOKED] * 2
        for member in members:
            assert member.stopped
            await world.host.end(member)
            await world.host.launch("vm1", REQUEST)
        assert len(world.enclaves[1].channels) == 2

    assert len(run(scenario).orders) == 2


def test_a_crash_report_says_where_and_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario(world: World) -> None:
        member = await world.host.launch("vm1", REQUEST)
        world.enclaves[0].fault()
        await expect_soon(lambda: bool(events(world, "crash")))
        with pytest.raises(errors.FaultError) as caught:
            assert member.channel_fd
        assert caught.value.detail == f"#UD at {REQUEST.secret_binary_id.hex()}+{OFFSET:#x}"

    (report,) = events(run(scenario), "crash")
    del report["at"]
    assert report == {
        "event": "crash",
        "build_id": REQUEST.secret_binary_id.hex(),
        "offset": hex(OFFSET),
        "kind": "#UD",
        "release": "p/app@1",
        "vm": "vm1",
        "by": "agent",
    }
    assert "heap" not in "".join(capsys.readouterr()), "nor does the log"
