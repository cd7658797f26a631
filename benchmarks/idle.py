"""What enclaves hold and use that nobody calls: one, and a thousand together."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from figures import Figure, value_at_most
from local import released, running
from start import first_call

from hypervisor_agent.enclave.backend import Backend
from hypervisor_agent.enclave.channel import Channel
from hypervisor_agent.enclave.enclave import Enclave
from hypervisor_agent.enclave.process import SparePool

MANY = 1000
_MIB = 1 << 20
_MOST_MIB = 3.0
_SPARE_MIB = 1024
"""Left for everybody else."""
_DESCRIPTORS = 4 * MANY + 256


class SkippedError(Exception):
    """A figure needs what this machine has not."""


def resident_beyond(pid: int) -> float:
    """Return a VMM's resident MiB outside the memory of its enclave and channel."""
    total, counted = 0, True
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            counted = "/memfd:" not in line
        elif words[0] == "Rss:" and counted:
            total += int(words[1]) * 1024
    return total / _MIB


def _field(path: str, name: str) -> float:
    """Return a line's kB, in MiB, of a file of /proc."""
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise ValueError(f"{path} has no {name}")


def _cpu_seconds(pids: list[int]) -> float:
    """Return the run time of every thread, in seconds, from the scheduler's nanoseconds."""
    spent = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            spent += int((task / "schedstat").read_text().split()[0])
    return spent / 1e9


def measure_idle(backend: Backend, _runs: int, seconds: float = 10.0) -> list[Figure]:
    """vmm_rss, and the CPU time of an enclave that nobody calls."""
    pool = SparePool(backend)
    try:
        with running(released("echo"), pool) as enclave:
            channel = Channel(*enclave.channel_size)
            first_call(enclave, channel)
            time.sleep(0.5)
            before = _cpu_seconds([enclave.pid])
            time.sleep(seconds)
            used = (_cpu_seconds([enclave.pid]) - before) / seconds * 100
            resident = resident_beyond(enclave.pid)
        channel.close()
    finally:
        pool.close()
    beyond, over = "beyond image, stack, heap, channel", f"over {seconds:.0f} s"
    return [
        _against_bound("vmm_rss", resident, "MiB", 2.0, backend, beyond),
        _against_bound("idle_cpu", used, "%", 0.1, backend, over),
    ]


def _against_bound(name: str, value: float, unit: str, bound: float, backend: Backend, note: str) -> Figure:
    figure = Figure(name, value, unit, bound, "the bound", 1, backend.name, note)
    return figure.within(value_at_most(bound, unit))


@contextmanager
def _enough_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, _DESCRIPTORS)
    if hard not in (-1, resource.RLIM_INFINITY) and hard < wanted:
        raise SkippedError(f"{MANY} enclaves need {wanted} descriptors, the limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class _Crowd:
    """Enclaves that have each answered one call, and whose guest process stays."""

    def __init__(self, pool: SparePool) -> None:
        self._pool = pool
        self.enclaves: list[Enclave] = []
        self.channels: list[Channel] = []
        self._memory_fds: list[int] = []

    def add(self) -> None:
        """Start one more."""
        plan = released("echo").load()
        self._memory_fds.append(plan.memory.fd)
        self.enclaves.append(Enclave.start(plan, self._pool))
        self.channels.append(Channel(*self.enclaves[-1].channel_size))
        first_call(self.enclaves[-1], self.channels[-1])

    def resident(self) -> float:
        """Return MiB: what the VMMs hold of their own, and every page of enclave memory and channel, once."""
        own = sum(
            _field(f"/proc/{one.pid}/status", name)
            for one in self.enclaves
            for name in ("RssAnon:", "RssFile:")
        )
        shared = sum(os.fstat(fd).st_blocks for fd in self._memory_fds)
        shared += sum(os.fstat(channel.fd).st_blocks for channel in self.channels)
        return own + shared * 512 / _MIB

    def close(self) -> None:
        """End all of them."""
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(Enclave.destroy, self.enclaves))
        for channel in self.channels:
            channel.close()


def measure_thousand(backend: Backend, _runs: int, seconds: float = 5.0) -> list[Figure]:
    """idle_1000: a thousand enclaves alive together, resident MiB of each, CPU of all.

    :raises SkippedError: too little memory, or too few descriptors.
    """
    free, needed = _field("/proc/meminfo", "MemAvailable:"), MANY * _MOST_MIB * 2 + _SPARE_MIB
    if free < needed:
        raise SkippedError(f"{MANY} enclaves may need {needed:.0f} MiB, {free:.0f} MiB are free")
    pool = SparePool(backend)
    crowd = _Crowd(pool)
    try:
        with _enough_descriptors():
            for _ in range(MANY):
                crowd.add()
            time.sleep(1.0)
            resident, fell = crowd.resident(), free - _field("/proc/meminfo", "MemAvailable:")
            pids = [each.pid for each in crowd.enclaves]
            before, start = _cpu_seconds(pids), time.monotonic()
            time.sleep(seconds)
            used = (_cpu_seconds(pids) - before) / (time.monotonic() - start) * 100
    finally:
        crowd.close()
        pool.close()
    return _thousand(backend, resident / MANY, fell / MANY, used)


def _thousand(backend: Backend, resident: float, fell: float, used: float) -> list[Figure]:
    note = f"each of {MANY}, VMM and all; free memory fell by {fell:.2f} MiB each, kernel's share included"
    each = _against_bound("idle_1000", resident, "MiB", _MOST_MIB, backend, note)
    note = f"of one core, all {MANY} together"
    return [each, _against_bound("idle_1000_cpu", used, "%", 1.0, backend, note)]
