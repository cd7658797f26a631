"""The VMM as a process: what it refuses, how it is confined, what it costs."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hypervisor_agent import abi
from hypervisor_agent.abi import EventKind
from hypervisor_agent.enclave.backend import choose_backend
from hypervisor_agent.enclave.channel import Channel
from hypervisor_agent.enclave.enclave import Enclave
from hypervisor_agent.enclave.process import EnclaveProcess, SparePool
from hypervisor_agent.plan import EnclavePlan

if TYPE_CHECKING:
    from conftest import Launch, Probe

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
def parts(probe: Probe) -> Iterator[tuple[EnclavePlan, Channel]]:
    """Load a plan and make a channel for it."""
    plan = probe.plan()
    channel = Channel(plan.config.slot_count, plan.config.slot_bytes)
    yield plan, channel
    plan.memory.wipe()
    channel.close()


Parts = tuple[EnclavePlan, Channel]


def _refusal(process: EnclaveProcess) -> int:
    event = process.receive(10)
    assert event is not None
    assert event.kind is EventKind.HOST
    assert event.status != 0
    assert process.receive(10) is None, "it has ended"
    return event.rip


def test_bad_configuration_is_refused(spare: EnclaveProcess, parts: Parts, pool: SparePool) -> None:
    plan, channel = parts
    data = bytearray(plan.config.pack())
    data[0] ^= 1
    spare.configure(bytes(data), plan.memory.fd, channel.fd)
    assert _refusal(spare) == STEP_CONFIG


@pytest.mark.parametrize("data", [b"x", bytes(abi.CONFIG_BYTES - 1), bytes(abi.CONFIG_BYTES + 1)])
def test_message_of_another_length_is_refused(spare: EnclaveProcess, parts: Parts, data: bytes) -> None:
    plan, channel = parts
    spare.configure(data, plan.memory.fd, channel.fd)
    assert _refusal(spare) in {STEP_RECEIVE, STEP_CONFIG}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_other_numbers_of_descriptors_are_refused(spare: EnclaveProcess, parts: Parts, count: int) -> None:
    plan, channel = parts
    fds = [plan.memory.fd, channel.fd, channel.fd][:count]
    socket.send_fds(spare._socket, [plan.config.pack()], fds)
    assert _refusal(spare) in {STEP_RECEIVE, STEP_CONFIG}


@pytest.mark.parametrize("which", ["memory", "channel"])
def test_unsealed_memory_is_refused(spare: EnclaveProcess, parts: Parts, which: str) -> None:
    plan, channel = parts
    size = plan.config.memory_bytes if which == "memory" else channel.size
    open_ended = os.memfd_create("unsealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(open_ended, size)
    fds = (open_ended, channel.fd) if which == "memory" else (plan.memory.fd, open_ended)
    spare.configure(plan.config.pack(), *fds)
    os.close(open_ended)
    assert _refusal(spare) in {STEP_DESCRIPTORS, STEP_CONFIG}


def test_memory_of_another_size_is_refused(spare: EnclaveProcess, parts: Parts) -> None:
    plan, channel = parts
    larger = replace(plan.config, memory_bytes=plan.config.memory_bytes + 4096)
    spare.configure(larger.pack(), plan.memory.fd, channel.fd)
    assert _refusal(spare) in {STEP_DESCRIPTORS, STEP_CONFIG}


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
