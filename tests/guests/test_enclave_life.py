"""Starting and ending: whatever dies, nothing stays behind and waiting calls are told."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cafe_lib.errors import EnclaveError, ExitedError, HostError, KvmError
from hypervisor_agent import abi
from hypervisor_agent.abi import Status
from hypervisor_agent.enclave.backend import Backend, choose_backend
from hypervisor_agent.enclave.channel import Channel
from hypervisor_agent.enclave.enclave import Enclave
from hypervisor_agent.enclave.process import EnclaveProcess, SparePool

if TYPE_CHECKING:
    from conftest import Connect, Launch, Probe

AGENT = """
import sys, time
from hypervisor_agent.enclave.backend import choose_backend
from hypervisor_agent.enclave.process import EnclaveProcess, SparePool

pool = SparePool(choose_backend(sys.argv[1]))
spare, taken = pool.take(), pool.take()
print(spare.pid, taken.pid, flush=True)
time.sleep(60)
"""


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _memfds() -> int:
    maps = Path("/proc/self/maps").read_text()
    return maps.count("memfd:cafe")


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.case("B17")
def test_killed_vmm_is_a_typed_error_within_a_second(launch: Launch) -> None:
    enclave, caller = launch()
    caller.request("spin")
    time.sleep(0.05)
    begin = time.monotonic()
    os.kill(enclave.pid, signal.SIGKILL)
    outcome = enclave.wait(5)
    assert isinstance(outcome.error, ExitedError)
    assert caller.dead is Status.EXITED
    assert time.monotonic() - begin < 1


@pytest.mark.case("B17")
def test_killed_vmm_wakes_a_sleeping_call(launch: Launch) -> None:
    enclave, caller = launch(deadline_ms=5000)
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(caller.call("spin")))
    thread.start()
    time.sleep(0.1)
    os.kill(enclave.pid, signal.SIGKILL)
    enclave.wait(5)
    thread.join(1)
    assert answers == [Status.EXITED]


@pytest.mark.case("B17")
def test_flood_of_the_channel_harms_nobody_else(launch: Launch) -> None:
    """The guest writes nonsense into every word it can reach, all the time."""
    other, other_caller = launch()
    enclave, caller = launch(deadline_ms=200)
    until = time.monotonic() + 0.5
    value = 0
    while time.monotonic() < until:
        value = (value * 1664525 + 1013904223) & 0xFFFFFFFF
        for offset in (64, 68, 72, 128, 4096, 4100, 4160, 4168, 4096 + 65536, 4096 + 65536 + 64):
            caller.put(offset, value)
        caller.put(4164, 0)  # the probe trusts its entry index; the runtime does not
        caller.ring()
    assert other_caller.call("echo", 1) == 2
    assert other.wait(0) is None
    assert enclave.wait(0) is None, "it still runs, for what it is worth"
    enclave.destroy()
    assert enclave.pid == 0


@pytest.mark.case("B17")
def test_spare_that_died_is_replaced(probe: Probe, pool: SparePool) -> None:
    pool.refill()
    assert pool._spare is not None
    spare = pool._spare.result()
    os.kill(spare.pid, signal.SIGKILL)
    time.sleep(0.05)
    enclave = Enclave.start(probe.plan(), pool)
    assert spare.pid == 0, "reaped"
    assert enclave.wait(0) is None
    enclave.destroy()


def test_no_process_is_handed_out_twice(vmm: Path) -> None:
    """Many threads take at once."""
    spares = SparePool(Backend("kvm", (str(vmm),)))
    taken: list[EnclaveProcess] = []

    def take() -> None:
        spares.refill()
        taken.append(spares.take())

    threads = [threading.Thread(target=take) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({process.pid for process in taken}) == 12
    for process in taken:
        process.end()
        process.close()
    spares.close()


@pytest.mark.case("B17")
def test_killed_agent_takes_its_vmms_along(pool: SparePool) -> None:
    agent = subprocess.Popen([sys.executable, "-c", AGENT, pool.backend.name], stdout=subprocess.PIPE)
    try:
        pids = [int(word) for word in agent.stdout.readline().split()]
        assert not any(_gone(pid) for pid in pids)
    finally:
        agent.kill()
        agent.wait()
        agent.stdout.close()
    until = time.monotonic() + 1
    while time.monotonic() < until and not all(_gone(pid) for pid in pids):
        time.sleep(0.01)
    assert all(_gone(pid) for pid in pids)


@pytest.mark.case("B17")
@pytest.mark.parametrize("end", ["destroy", "fault", "kill", "start fails"])
def test_no_descriptor_mapping_or_process_is_left(probe: Probe, pool: SparePool, end: str) -> None:
    def life() -> None:
        if end == "start fails":
            image = bytearray(probe.plain)
            image[probe.symbols["before_ready"]] = 0xF4
            with pytest.raises(EnclaveError):
                Enclave.start(probe.plan(bytes(image)), pool)
            return
        enclave = Enclave.start(probe.plan(), pool)
        if end == "kill":
            os.kill(enclave.pid, signal.SIGKILL)
            enclave.wait(5)
        pid = enclave.pid
        enclave.destroy()
        enclave.destroy()
        assert pid == 0 or _gone(pid)

    life()
    time.sleep(0.05)
    before = (_descriptors(), _memfds())
    for _ in range(3):
        life()
    time.sleep(0.05)
    assert (_descriptors(), _memfds()) == before


def test_destroy_tells_why(launch: Launch) -> None:
    enclave, caller = launch()
    enclave.destroy(Status.REVOKED)
    assert caller.dead is Status.REVOKED


def test_first_reason_stays(launch: Launch) -> None:
    enclave, caller = launch()
    assert caller.call("undefined") is Status.FAULT
    enclave.destroy(Status.REVOKED)
    assert caller.dead is Status.FAULT


def test_memory_is_wiped(probe: Probe, pool: SparePool) -> None:
    plan = probe.plan()
    copy = os.dup(plan.memory.fd)
    try:
        enclave = Enclave.start(plan, pool)
        size = os.fstat(copy).st_size
        assert probe.plain[4096:8192] in os.pread(copy, size, 0)
        enclave.destroy()
        assert not any(os.pread(copy, size, 0))
    finally:
        os.close(copy)


def test_event_loop_is_told(launch: Launch) -> None:
    enclave, caller = launch()

    async def watch() -> object:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(enclave.fileno(), ended.set)
        caller.request("undefined")
        await asyncio.wait_for(ended.wait(), 5)
        outcome = enclave.wait(0)
        loop.remove_reader(enclave.fileno())
        return outcome

    assert asyncio.run(watch()).status is Status.FAULT


def test_running_enclave_is_not_readable(launch: Launch) -> None:
    enclave, _ = launch()
    assert select.select([enclave], [], [], 0.05) == ([], [], [])
    assert enclave.wait(0) is None


def test_missing_program_is_a_host_error() -> None:
    broken = SparePool(Backend("kvm", ("/nonexistent/vmm",)))
    with pytest.raises(HostError):
        broken.take()
    broken.close()


def test_program_that_ends_at_once_is_a_typed_error(probe: Probe) -> None:
    broken = SparePool(Backend("kvm", ("/bin/false",)))
    with pytest.raises(ExitedError):
        Enclave.start(probe.plan(), broken)
    broken.close()


def test_image_for_a_better_cpu_is_refused_by_the_emulator(probe: Probe) -> None:
    spares = SparePool(choose_backend("emulator"))
    try:
        with pytest.raises(KvmError, match="CPUID"):
            Enclave.start(probe.plan(isa=3), spares)
    finally:
        spares.close()


@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="there is no /dev/kvm we may open")
def test_avx_where_the_manifest_asks_for_it(probe: Probe, vmm: Path, connect: Connect) -> None:
    if "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this CPU has no AVX2")
    spares = SparePool(choose_backend("kvm"))
    enclave = Enclave.start(probe.plan(isa=3), spares)
    try:
        assert connect(enclave).call("avx") == 77
    finally:
        enclave.destroy()
        spares.close()


def test_channel_header_and_seals() -> None:
    channel = Channel(3, 8192, 2 << 20)
    try:
        head = abi.CHANNEL_HEADER.unpack(os.pread(channel.fd, abi.CHANNEL_HEADER.size, 0))
        assert head == (abi.CHANNEL_MAGIC, abi.ABI_VERSION, 3, 8192, 2 << 20, channel.size)
        assert os.fstat(channel.fd).st_size == channel.size == 4 << 20
        wanted = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        assert fcntl.fcntl(channel.fd, fcntl.F_GET_SEALS) & wanted == wanted
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(channel.fd, 0)
    finally:
        channel.close()
