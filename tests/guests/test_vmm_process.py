"""The VMM as a process: what it refuses, how it is confined, what it costs."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hypervisor_agent import abi
from hypervisor_agent.abi import CommandKind, EventKind, VmmEvent
from hypervisor_agent.enclave.backend import choose_backend
from hypervisor_agent.enclave.channel import Channel
from hypervisor_agent.enclave.enclave import Enclave
from hypervisor_agent.enclave.process import EnclaveProcess, SparePool
from hypervisor_agent.plan import EnclavePlan

if TYPE_CHECKING:
    from conftest import Caller, Launch, Probe

STEP_RECEIVE, STEP_CONFIG, STEP_DESCRIPTORS = 5, 6, 7
PAGE_KIB = 4


@pytest.fixture
def spare(pool: SparePool) -> Iterator[EnclaveProcess]:
    """Take a process of its own."""
    process = pool.take()
    yield process
    process.end()
    process.close()


@pytest.fixture
def plan(probe: Probe) -> Iterator[EnclavePlan]:
    """Load a plan."""
    made = probe.plan()
    yield made
    made.memory.wipe()


def _refusal(process: EnclaveProcess) -> int:
    event = process.receive(10)
    assert event is not None
    assert event.kind is EventKind.HOST
    assert event.status != 0
    assert process.receive(10) is None, "it has ended"
    return event.rip


def test_bad_configuration_is_refused(spare: EnclaveProcess, plan: EnclavePlan) -> None:
    data = bytearray(plan.config.pack())
    data[0] ^= 1
    spare.configure(bytes(data), plan.memory.fd)
    assert _refusal(spare) == STEP_CONFIG


@pytest.mark.parametrize("data", [b"x", bytes(abi.CONFIG_BYTES - 1), bytes(abi.CONFIG_BYTES + 1)])
def test_message_of_another_length_is_refused(spare: EnclaveProcess, plan: EnclavePlan, data: bytes) -> None:
    spare.configure(data, plan.memory.fd)
    assert _refusal(spare) in {STEP_RECEIVE, STEP_CONFIG}


@pytest.mark.parametrize("count", [0, 2, 3])
def test_other_numbers_of_descriptors_are_refused(
    spare: EnclaveProcess, plan: EnclavePlan, count: int
) -> None:
    socket.send_fds(spare._socket, [plan.config.pack()], [plan.memory.fd] * count)
    assert _refusal(spare) in {STEP_RECEIVE, STEP_CONFIG}


@contextmanager
def _unsealed(size: int) -> Iterator[int]:
    fd = os.memfd_create("unsealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    yield fd
    os.close(fd)


def test_unsealed_memory_is_refused(spare: EnclaveProcess, plan: EnclavePlan) -> None:
    with _unsealed(plan.config.memory_bytes) as memory:
        spare.configure(plan.config.pack(), memory)
    assert _refusal(spare) in {STEP_DESCRIPTORS, STEP_CONFIG}


def test_memory_of_another_size_is_refused(spare: EnclaveProcess, plan: EnclavePlan) -> None:
    larger = replace(plan.config, memory_bytes=plan.config.memory_bytes + 4096)
    spare.configure(larger.pack(), plan.memory.fd)
    assert _refusal(spare) in {STEP_DESCRIPTORS, STEP_CONFIG}


@pytest.fixture
def ready(spare: EnclaveProcess, plan: EnclavePlan) -> EnclaveProcess:
    """Start the plan in a process of its own."""
    spare.configure(plan.config.pack(), plan.memory.fd)
    event = spare.receive(10)
    assert event is not None
    assert event.kind is EventKind.READY
    return spare


ATTACH = abi.VmmCommand(CommandKind.ATTACH)


def _attached(process: EnclaveProcess, fd: int) -> VmmEvent:
    process.command(ATTACH, fd)
    event = process.receive(10)
    assert event is not None
    assert event.kind is EventKind.ATTACHED
    return event


def test_unsealed_channel_is_refused(ready: EnclaveProcess, plan: EnclavePlan) -> None:
    with _unsealed(plan.config.region_bytes) as region:
        assert _attached(ready, region).status == errno.EINVAL


@pytest.mark.parametrize("size", [(1, 65536, 0), (2, 4096, 0), (2, 65536, 2 << 20), (3, 65536, 0)])
def test_channel_of_another_size_is_refused(ready: EnclaveProcess, size: tuple[int, int, int]) -> None:
    other = Channel(*size)
    assert _attached(ready, other.fd).status == errno.EINVAL
    other.close()


def test_what_is_no_channel_is_refused(ready: EnclaveProcess, plan: EnclavePlan) -> None:
    ours, theirs = os.pipe()
    for fd in (ours, theirs, plan.memory.fd):
        assert _attached(ready, fd).status != 0
    os.close(ours)
    os.close(theirs)
    right = Channel(*plan.channel_size)
    assert _attached(ready, right.fd).status == 0, "and nothing came of it"
    right.close()


@pytest.fixture
def two_vcpus(probe: Probe, kvm_pool: SparePool) -> Iterator[tuple[EnclaveProcess, EnclavePlan]]:
    """Start a plan of two vCPUs in a process of its own, under KVM."""
    process, plan = kvm_pool.take(), probe.plan(vcpu_count=2, deadline_ms=300)
    process.configure(plan.config.pack(), plan.memory.fd)
    event = process.receive(10)
    assert event is not None
    assert event.kind is EventKind.READY
    yield process, plan
    process.end()
    process.close()
    plan.memory.wipe()


@pytest.mark.case("B15", "B16")
@pytest.mark.parametrize("entries", [("spin", "undefined"), ("undefined", "undefined"), ("spin", "spin")])
def test_the_end_of_one_vcpu_is_one_event(
    two_vcpus: tuple[EnclaveProcess, EnclavePlan],
    guest_of: Callable[[Channel], Caller],
    entries: tuple[str, str],
) -> None:
    """Both run, for two processes; whichever ends, the VMM says it once and is gone."""
    process, plan = two_vcpus
    channels = [Channel(*plan.channel_size) for _ in entries]
    callers = [guest_of(channel) for channel in channels]
    for channel in channels:
        assert _attached(process, channel.fd).status == 0
    for caller, entry in zip(callers, entries, strict=True):
        caller.request(entry)
    event = process.receive(10)
    assert event is not None
    assert event.kind is (EventKind.FAULT if "undefined" in entries else EventKind.DEADLINE)
    assert process.receive(10) is None, "nothing after it"
    assert {caller.dead for caller in callers} == {abi.Status(event.status)}
    for channel in channels:
        channel.close()


def test_detaching_what_nobody_has_does_nothing(ready: EnclaveProcess, plan: EnclavePlan) -> None:
    for region in (0, 7, 8, 15, 16, 1 << 31, (1 << 32) - 1):
        ready.command(abi.VmmCommand(CommandKind.DETACH, region))
    channel = Channel(*plan.channel_size)
    assert _attached(ready, channel.fd).status == 0
    channel.close()


BAD_COMMANDS = {
    "short": ATTACH.pack()[:-1],
    "long": ATTACH.pack() + b"\0",
    "kind": bytes(8),
    "no descriptor": ATTACH.pack(),
}


@pytest.mark.parametrize("data", BAD_COMMANDS.values(), ids=BAD_COMMANDS)
def test_command_that_does_not_parse_ends_it(ready: EnclaveProcess, data: bytes) -> None:
    ready._socket.send(data)
    event = ready.receive(10)
    assert event is None or event.kind is EventKind.HOST
    assert event is None or ready.receive(10) is None


def test_agent_that_closes_its_end_ends_a_running_enclave(ready: EnclaveProcess) -> None:
    ready.close()
    assert os.waitpid(ready.pid, 0)[0] == ready.pid
    ready.pid = 0


def test_last_word_is_heard_although_a_command_was_not_read() -> None:
    """A socket that is closed with a message unread tells its peer of a reset before anything else."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = EnclaveProcess(0, ours)
    process.command(ATTACH)
    last = VmmEvent(EventKind.FAULT, 14, status=4)
    theirs.send(last.pack())
    theirs.close()
    assert process.receive(1) == last
    assert process.receive(1) is None
    process.close()


def test_agent_that_closes_its_end_leaves_no_process(pool: SparePool) -> None:
    process = pool.take()
    process.close()
    assert os.waitpid(process.pid, 0)[0] == process.pid
    process.pid = 0


def test_spare_whose_agent_goes_says_nothing(pool: SparePool, capfd: pytest.CaptureFixture[str]) -> None:
    process = EnclaveProcess.spawn(pool.backend)
    process.close()
    assert os.waitpid(process.pid, 0)[0] == process.pid
    assert capfd.readouterr().err == ""


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


@pytest.mark.case("D06")
def test_not_dumpable(launch: Launch) -> None:
    enclave, _ = launch()
    # The kernel gives the files of a process that is not dumpable to root, whoever it belongs to.
    assert Path(f"/proc/{enclave.pid}/environ").stat().st_uid == 0
    assert _status(enclave.pid)["NoNewPrivs"] == "1"
    if os.geteuid():  # not even its owner may look
        with pytest.raises(PermissionError):
            _memory_flags(enclave.pid, "cafe-enclave")
        return
    flags = _memory_flags(enclave.pid, "cafe-enclave")
    assert flags
    assert all("dd" in part for part in flags), "enclave memory is left out of core dumps"


def _memory_flags(pid: int, name: str) -> list[set[str]]:
    text = Path(f"/proc/{pid}/smaps").read_text()
    return [set(part.split()) for part in re.findall(rf"memfd:{name}.*?VmFlags:([^\n]*)", text, re.DOTALL)]


def test_vmm_is_confined(kvm_enclave: Enclave) -> None:
    status = _status(kvm_enclave.pid)
    assert status["Seccomp"] == "2"
    limits = Path(f"/proc/{kvm_enclave.pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0", limits)
    assert re.search(r"Max file size +0 +0", limits)


@pytest.mark.case("D06")
def test_enclave_memory_is_locked(kvm_enclave: Enclave) -> None:
    assert all("lo" in flags for flags in _memory_flags(kvm_enclave.pid, "cafe-enclave"))


def test_vmm_holds_few_descriptors(kvm_enclave: Enclave) -> None:
    names = [str(entry.readlink()) for entry in Path(f"/proc/{kvm_enclave.pid}/fd").iterdir()]
    kinds = {re.sub(r"[:\[].*", "", name) for name in names if not name.startswith(("/dev/null", "pipe"))}
    assert {name for name in names if "memfd" in name or "/dev/kvm" in name or "kvm-vm" in name} == set()
    assert "socket" in kinds
    assert any("kvm-vcpu" in name for name in names)
    assert len(names) <= 5


def test_vmm_is_small(kvm_enclave: Enclave) -> None:
    status = _status(kvm_enclave.pid)
    own = int(status["RssAnon"].split()[0]) + int(status["RssFile"].split()[0])
    assert own <= 2048, "KiB beyond image, stack, heap and channel"


def test_forced_backends() -> None:
    assert choose_backend("emulator").name == "emulator"
    assert choose_backend("auto").name in {"kvm", "emulator"}
