"""The control sockets against a fake host: what a hostile guest may send, and what must be left behind."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from agent_guests import (
    REGION_BYTES,
    RELEASE,
    FakeHost,
    FakeMember,
    ask,
    connect,
    expect_soon,
    receive,
    run,
    serving,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cafe_lib.errors import ExitedError, HostError, LicenceError
from hypervisor_agent.abi import Status
from hypervisor_agent.guests import connection
from hypervisor_agent.guests.messages import (
    REQUEST_BYTES,
    LaunchReply,
    LaunchRequest,
)
from hypervisor_agent.guests.server import MAX_CONNECTIONS, MAX_LAUNCHES, GuestServer, GuestSocket


def test_a_launch_gives_the_channel(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = FakeHost()
        async with serving(tmp_path / "s", host):
            with closing(await connect(tmp_path / "s")) as client:
                reply, fds = await ask(client, LaunchRequest(9, RELEASE, b"d" * 32).encode())
                assert reply == LaunchReply(9, Status.OK, REGION_BYTES)
                assert [os.fstat(fd).st_size for fd in fds] == [REGION_BYTES]
                os.close(fds[0])
                assert host.launched[0][0] == "vm1"

    run(scenario)


def test_the_socket_is_for_its_vm_only_and_goes_with_the_agent(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path / "s", FakeHost()):
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
        assert not (tmp_path / "s").exists()

    run(scenario)


def test_asking_again_is_a_rejoin_of_this_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = FakeHost()
        async with serving(tmp_path / "s", host):
            with closing(await connect(tmp_path / "s")) as client:
                for number in (1, 2, 3):
                    reply, fds = await ask(client, LaunchRequest(number, RELEASE, b"d" * 32).encode())
                    assert reply is not None
                    assert reply.status is Status.OK
                    os.close(fds[0])
                reply, fds = await ask(client, LaunchRequest(4, b"x" * 32, b"d" * 32).encode())
                assert reply is not None
                assert reply.status is Status.HOST
                assert fds == []
            await expect_soon(lambda: len(host.ended) == 1)
        assert host.launched[0][1].rejoined == 2

    run(scenario)


def test_asking_again_after_the_lease_has_ended_is_a_new_launch(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = FakeHost()
        async with serving(tmp_path / "s", host):
            with closing(await connect(tmp_path / "s")) as client:
                for number in (1, 2):
                    _, fds = await ask(client, LaunchRequest(number, RELEASE, b"d" * 32).encode())
                    os.close(fds[0])
                    host.launched[-1][1].stopped = True
            await expect_soon(lambda: len(host.ended) == 2)
        assert [member.rejoined for _, member in host.launched] == [0, 0]

    run(scenario)


@pytest.mark.case("B17")
def test_a_guest_that_goes_is_let_go_and_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = FakeHost()
        async with serving(tmp_path / "s", host):
            first, second = await connect(tmp_path / "s"), await connect(tmp_path / "s")
            for client in (first, second):
                _, fds = await ask(client, LaunchRequest(1, RELEASE, b"d" * 32).encode())
                os.close(fds[0])
            first.close()
            await expect_soon(lambda: host.ended == [host.launched[0][1]])
            second.close()
            await expect_soon(lambda: len(host.ended) == 2)

    run(scenario)


@pytest.mark.case("B17")
def test_a_guest_that_goes_while_it_waits_cancels_the_launch(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = FakeHost(delay=30)
        async with serving(tmp_path / "s", host):
            client = await connect(tmp_path / "s")
            await asyncio.get_running_loop().sock_sendall(
                client, LaunchRequest(1, RELEASE, b"d" * 32).encode()
            )
            await asyncio.sleep(0.05)
            client.close()
            await expect_soon(lambda: host.cancelled == 1)
        assert host.launched == []

    run(scenario)


@pytest.mark.case("B17")
def test_the_agents_end_lets_every_guest_go(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = FakeHost()
        async with serving(tmp_path / "s", host):
            clients = [await connect(tmp_path / "s") for _ in range(3)]
            for client in clients:
                _, fds = await ask(client, LaunchRequest(1, RELEASE, b"d" * 32).encode())
                os.close(fds[0])
        assert len(host.ended) == 3
        for client in clients:
            assert (await receive(client))[0] is None
            client.close()

    run(scenario)


def test_a_refusal_is_a_status_and_the_guest_may_try_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = FakeHost(refuse=LicenceError("tenant acme has 0 of 3 seats"))
        async with serving(tmp_path / "s", host):
            with closing(await connect(tmp_path / "s")) as client:
                reply, fds = await ask(client, LaunchRequest(1, RELEASE, b"d" * 32).encode())
                assert reply is not None
                assert (reply.status, fds) == (Status.LICENCE, [])
                assert "acme" not in reply.message
                host.refuse = None
                reply, fds = await ask(client, LaunchRequest(2, RELEASE, b"d" * 32).encode())
                assert reply is not None
                assert reply.status is Status.OK
                os.close(fds[0])

    run(scenario)


@dataclass
class EndedMember(FakeMember):
    """Ended by itself right after its start."""

    def __getattribute__(self, name: str) -> object:
        if name == "region_bytes":
            raise ExitedError("the enclave has ended")
        return object.__getattribute__(self, name)


class ShortLivedHost(FakeHost):
    async def launch(self, vm_id: str, request: LaunchRequest) -> FakeMember:
        member = await super().launch(vm_id, request)
        return EndedMember(member.secret_binary_id, member.channel_fd)


@pytest.mark.case("B17")
def test_an_enclave_that_ends_before_the_reply_is_a_status(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = ShortLivedHost()
        async with serving(tmp_path / "s", host):
            with closing(await connect(tmp_path / "s")) as client:
                reply, fds = await ask(client, LaunchRequest(5, RELEASE, b"d" * 32).encode())
                assert reply is not None
                assert (reply.number, reply.status, fds) == (5, Status.EXITED, [])
            await expect_soon(lambda: len(host.ended) == 1)

    run(scenario)


@pytest.mark.case("B17")
@pytest.mark.parametrize("waits", [True, False], ids=["refused", "gone"])
def test_launches_that_come_to_nothing_are_slowed_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, waits: bool
) -> None:
    monkeypatch.setattr(connection, "FAILURE_PAUSE_SECONDS", 0.3)
    asked = 0

    class Refusing(FakeHost):
        async def launch(self, vm_id: str, request: LaunchRequest) -> FakeMember:
            nonlocal asked
            asked += 1
            await asyncio.sleep(0 if waits else 30)
            raise LicenceError(f"{vm_id}: no licence for {request.secret_binary_id.hex()}")

    async def flood() -> None:
        while True:
            with closing(await connect(tmp_path / "s")) as client:
                request = LaunchRequest(1, RELEASE, b"d" * 32).encode()
                if waits:
                    await ask(client, request)
                else:
                    await asyncio.get_running_loop().sock_sendall(client, request)
                    await asyncio.sleep(0.01)

    async def scenario() -> None:
        async with serving(tmp_path / "s", Refusing()):
            tasks = [asyncio.create_task(flood()) for _ in range(MAX_LAUNCHES)]
            await asyncio.sleep(1)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert MAX_LAUNCHES <= asked <= 4 * MAX_LAUNCHES

    run(scenario)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(bytes(REQUEST_BYTES), Status.MALFORMED, id="zeros"),
        pytest.param(b"\xff" * REQUEST_BYTES, Status.MALFORMED, id="ones"),
        pytest.param(b"GET / HTTP/1.1\r\n" * 5, Status.MALFORMED, id="another protocol"),
        pytest.param(
            LaunchRequest(1, RELEASE, b"d" * 32).encode()[:4] + b"\1" + bytes(3) + bytes(72),
            Status.VERSION,
            id="another ABI",
        ),
    ],
)
def test_bad_requests_get_a_status(tmp_path: Path, data: bytes, status: Status) -> None:
    async def scenario() -> None:
        host = FakeHost()
        async with serving(tmp_path / "s", host):
            with closing(await connect(tmp_path / "s")) as client:
                reply, fds = await ask(client, data)
                assert reply is not None
                assert (reply.status, fds, host.launched) == (status, [], [])

    run(scenario)


@pytest.mark.case("B17")
def test_a_silent_or_slow_guest_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.1)

    async def scenario() -> None:
        async with serving(tmp_path / "s", FakeHost()):
            with closing(await connect(tmp_path / "s")) as silent:
                assert (await receive(silent))[0] is None
            with closing(await connect(tmp_path / "s")) as slow:
                assert (await ask(slow, LaunchRequest(1, RELEASE, b"d" * 32).encode()[:20]))[0] is None

    run(scenario)


@pytest.mark.case("B17")
def test_a_flood_of_connections_is_bounded(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = FakeHost()
        async with serving(tmp_path / "s", host):
            flood = [await connect(tmp_path / "s") for _ in range(MAX_CONNECTIONS)]
            with closing(await connect(tmp_path / "s")) as extra:
                assert (await receive(extra))[0] is None
            for client in flood:
                client.close()
            await asyncio.sleep(0.05)
            with closing(await connect(tmp_path / "s")) as after:
                reply, fds = await ask(after, LaunchRequest(1, RELEASE, b"d" * 32).encode())
                assert reply is not None
                assert reply.status is Status.OK
                os.close(fds[0])

    run(scenario)


@pytest.mark.case("B17")
def test_a_flood_of_launches_takes_turns(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = FakeHost(delay=0.2)
        async with serving(tmp_path / "s", host):
            clients = [await connect(tmp_path / "s") for _ in range(MAX_LAUNCHES + 2)]
            for client in clients:
                await asyncio.get_running_loop().sock_sendall(
                    client, LaunchRequest(1, RELEASE, b"d" * 32).encode()
                )
            await asyncio.sleep(0.3)
            assert len(host.launched) == MAX_LAUNCHES
            await expect_soon(lambda: len(host.launched) == len(clients))
            for client in clients:
                client.close()

    run(scenario)


@pytest.mark.case("B17")
def test_requests_sent_before_the_answer_are_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = FakeHost(delay=5)
        async with serving(tmp_path / "s", host):
            with closing(await connect(tmp_path / "s")) as client:
                request = LaunchRequest(1, RELEASE, b"d" * 32).encode()
                assert (await ask(client, request + request))[0] is None
                assert host.launched == []

    run(scenario)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=REQUEST_BYTES, max_size=4 * REQUEST_BYTES))
def test_any_bytes_from_a_guest_leave_nothing_behind(tmp_path: Path, data: bytes) -> None:
    async def scenario() -> None:
        host = FakeHost()
        async with serving(tmp_path / "s", host):
            client = await connect(tmp_path / "s")
            reply, fds = await ask(client, data)
            assert reply is None or reply.status is not Status.OK
            assert fds == []
            client.close()
        assert host.launched == host.ended

    before = len(list(Path("/proc/self/fd").iterdir()))
    run(scenario)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_stale_socket_is_taken_over_and_a_live_one_is_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "s"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        async with serving(path, FakeHost()):
            second = GuestServer([GuestSocket("vm1", path)], FakeHost())  # type: ignore[arg-type] # a fake
            with pytest.raises(HostError, match="another agent"):
                second.listen()
        path.write_text("a file")
        with pytest.raises(HostError, match="not a socket"):
            GuestServer([GuestSocket("vm1", path)], FakeHost()).listen()  # type: ignore[arg-type] # a fake

    run(scenario)


@pytest.mark.parametrize("text", ["", "=x", "../vm", "a b", "-x", "a" * 65, "vm/1=/tmp/s"])
def test_bad_vm_ids(text: str, tmp_path: Path) -> None:
    with pytest.raises(HostError):
        GuestSocket.parse(text, tmp_path)


def test_vm_arguments(tmp_path: Path) -> None:
    assert GuestSocket.parse("vm-1", tmp_path) == GuestSocket("vm-1", tmp_path / "vm-1.sock")
    assert GuestSocket.parse("vm-1=/run/x", tmp_path) == GuestSocket("vm-1", Path("/run/x"))
