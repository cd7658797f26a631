"""The boundary without a server: a call, a start, what a VMM holds, what an idle enclave uses."""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import Figure, median_figure
from local import BUILD, Guests, Released, compile_c

from hypervisor_agent import abi
from hypervisor_agent.enclave.backend import Backend
from hypervisor_agent.enclave.channel import Channel
from hypervisor_agent.enclave.enclave import Enclave
from hypervisor_agent.enclave.futex import futex_wait, futex_wake
from hypervisor_agent.enclave.process import SparePool

_SLOT_STATUS, _SLOT_WAITING, _SLOT_FRAME = 4, 72, 80
_MIB = 1 << 20


@contextmanager
def running(released: Released, pool: SparePool) -> Iterator[Enclave]:
    """Start an enclave on the second core, and destroy it."""
    enclave = Enclave.start(released.load().finish(), pool)
    try:
        for task in Path(f"/proc/{enclave.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {(os.cpu_count() or 1) - 1})
        yield enclave
    finally:
        enclave.destroy()


def measure_calls(released: Released, pool: SparePool, runs: int) -> list[Figure]:
    """call_64B: a process calls through its stub; the baseline is two processes and two words."""
    include, library = BUILD / "echo" / "include", BUILD / "echo" / "libecho.a"
    program = compile_c("call", "call.c", str(library), flags=(f"-I{include}", "-pthread"))
    pingpong = compile_c("pingpong", "pingpong.c")
    count = "200000" if pool.backend.name == "kvm" else "300"
    medians, tails = [], []
    for _ in range(runs):
        base = json.loads(subprocess.run([pingpong, "200000"], check=True, capture_output=True).stdout)
        with tempfile.TemporaryDirectory() as folder, running(released, pool) as enclave:
            Guests(Path(folder) / "socket", enclave)
            env = {"CAFE_SOCKET": f"{folder}/socket"}
            done = subprocess.run([program, count], env=env, check=True, capture_output=True)
        call = json.loads(done.stdout)
        medians.append((call["median_ns"], base["median_ns"]))
        tails.append((call["p99_ns"], base["p99_ns"]))
    name, backend = f"call_64B_{pool.backend.name}", pool.backend.name
    note = "64 bytes in, 64 out, through the stub"
    return [
        median_figure(name, "ns", medians, "bare ping-pong", backend=backend, note=note),
        median_figure(f"{name}_p99", "ns", tails, "bare ping-pong's p99", backend=backend, note=note),
    ]


def _first_call(enclave: Enclave) -> None:
    """Attach a channel and call entry 0 once, as libcafe does: publish, ring if the enclave sleeps, wait."""
    slot = abi.CHANNEL_HEADER_BYTES
    channel = Channel(*enclave.channel_size)
    attached = enclave.attach(channel)
    region = mmap.mmap(channel.fd, channel.size)
    struct.pack_into("<QQ", region, slot + _SLOT_FRAME, 1, 1)
    words = memoryview(region).cast("I")
    words[(slot + _SLOT_WAITING) // 4] = 1
    words[(slot + abi.SLOT_REQUEST) // 4] = 1
    anchor = ctypes.c_char.from_buffer(region)
    start = ctypes.addressof(anchor)
    if words[abi.CHANNEL_SLEEPING // 4]:
        words[abi.CHANNEL_BELL // 4] += 1
        futex_wake(start + abi.CHANNEL_BELL)
    while words[(slot + abi.SLOT_REPLY) // 4] != 1:
        futex_wait(start + slot + abi.SLOT_REPLY, 0, 1.0)
    if words[(slot + _SLOT_STATUS) // 4]:
        raise RuntimeError(f"the first call ended with {words[(slot + _SLOT_STATUS) // 4]}")
    del anchor
    words.release()
    region.close()
    enclave.detach(attached)
    channel.close()


def measure_start(released: Released, pool: SparePool, runs: int) -> Figure:
    """enclave_start_kvm: from package in memory to the first answered call; a spare VMM is ready."""
    bare = compile_c("barevm", "barevm.c")
    pairs = []
    for _ in range(runs):
        pool.refill()
        time.sleep(0.05)
        gc.collect()
        start = time.perf_counter()
        enclave = Enclave.start(released.load().finish(), pool)
        _first_call(enclave)
        took = time.perf_counter() - start
        enclave.destroy()
        done = subprocess.run([bare, "20"], check=True, capture_output=True)
        pairs.append((took * 1e3, json.loads(done.stdout)["median_ns"] / 1e6))
    what = "create, run once and destroy a bare KVM VM"
    return median_figure(f"enclave_start_{pool.backend.name}", "ms", pairs, what, backend=pool.backend.name)


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


def measure_idle(released: Released, pool: SparePool, seconds: float = 10.0) -> list[Figure]:
    """vmm_rss, and the CPU time of an enclave that nobody calls."""
    with running(released, pool) as enclave:
        _first_call(enclave)
        time.sleep(0.5)
        before = _cpu_seconds(enclave.pid)
        time.sleep(seconds)
        used = (_cpu_seconds(enclave.pid) - before) / seconds * 100
        resident = resident_beyond(enclave.pid)
    backend = pool.backend.name
    return [
        Figure(
            "vmm_rss", resident, "MiB", 2.0, "the bound", 1, backend, "beyond image, stack, heap, channel"
        ),
        Figure("idle_cpu", used, "%", 0.1, "the bound", 1, backend, f"over {seconds:.0f} s"),
    ]


def _cpu_seconds(pid: int) -> float:
    """Return the run time of every thread, in seconds, from the scheduler's nanoseconds."""
    spent = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        spent += int((task / "schedstat").read_text().split()[0])
    return spent / 1e9


def measure_boundary(backend: Backend, runs: int) -> list[Figure]:
    """Measure everything of this file with one backend."""
    released = Released.build("echo")
    pool = SparePool(backend)
    try:
        figures = measure_calls(released, pool, runs)
        if backend.name == "kvm":
            figures += [measure_start(released, pool, 4 * runs), *measure_idle(released, pool)]
        return figures
    finally:
        pool.close()
