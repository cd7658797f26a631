"""From a package in memory, and from a ready enclave of the pool, to the first answered call."""

from __future__ import annotations

import ctypes
import gc
import mmap
import time

from figures import Figure, median_figure, over_at_most
from local import compile_c, released, run_c, running

from hypervisor_agent import abi
from hypervisor_agent.enclave.backend import Backend
from hypervisor_agent.enclave.channel import Channel
from hypervisor_agent.enclave.enclave import Enclave
from hypervisor_agent.enclave.futex import futex_wait, futex_wake
from hypervisor_agent.enclave.process import SparePool

_SLOT = abi.CHANNEL_HEADER_BYTES
_SLOT_STATUS, _SLOT_WAITING = 4, 72
_SETTLE_SECONDS = 0.05


def first_call(enclave: Enclave, channel: Channel) -> int:
    """Attach a channel and call entry 0, which takes nothing; return the region.

    As libcafe does it: publish, ring if the enclave sleeps, wait.
    """
    region = enclave.attach(channel)
    size = _SLOT + channel.slot_bytes
    with mmap.mmap(channel.fd, size) as memory, memoryview(memory).cast("I") as words:
        anchor = ctypes.c_char.from_buffer(memory)
        _call(words, ctypes.addressof(anchor))
        del anchor  # or the mapping could not be closed
    return region


def _call(words: memoryview, start: int) -> None:
    words[(_SLOT + _SLOT_WAITING) // 4] = 1
    words[(_SLOT + abi.SLOT_REQUEST) // 4] = 1
    if words[abi.CHANNEL_SLEEPING // 4]:
        words[abi.CHANNEL_BELL // 4] += 1
        futex_wake(start + abi.CHANNEL_BELL)
    while words[(_SLOT + abi.SLOT_REPLY) // 4] != 1:
        futex_wait(start + _SLOT + abi.SLOT_REPLY, 0, 1.0)
    if status := words[(_SLOT + _SLOT_STATUS) // 4]:
        raise RuntimeError(f"the first call ended with {status}")


def measure_start(backend: Backend, runs: int) -> list[Figure]:
    """enclave_start: decrypt, relocate, seal, run; a spare VMM is ready, as in a busy agent."""
    bare, release, pool = compile_c("barevm", "barevm.c"), released("echo"), SparePool(backend)
    pairs = []
    try:
        for _ in range(4 * runs):
            pool.refill()
            time.sleep(_SETTLE_SECONDS)
            gc.collect()
            start = time.perf_counter()
            enclave = Enclave.start(release.load(), pool)
            channel = Channel(*enclave.channel_size)
            first_call(enclave, channel)
            took = time.perf_counter() - start
            enclave.destroy()
            channel.close()
            pairs.append((took * 1e3, run_c(bare, 20, "life")["median_ns"] / 1e6))
    finally:
        pool.close()
    what = "create, run once and destroy a bare KVM VM"
    return [median_figure(f"enclave_start_{backend.name}", "ms", pairs, what, backend=backend.name)]


def measure_pool(backend: Backend, runs: int) -> list[Figure]:
    """pool_first_call: an enclave that has started before anybody asked for it gets its first process."""
    bare, release, pool = compile_c("barevm", "barevm.c"), released("echo"), SparePool(backend)
    pairs = []
    try:
        for _ in range(4 * runs):
            with running(release, pool) as enclave:
                time.sleep(_SETTLE_SECONDS)  # it sleeps by now, and so does who makes the next spare
                channel = Channel(*enclave.channel_size)
                gc.collect()
                start = time.perf_counter()
                first_call(enclave, channel)
                took = time.perf_counter() - start
            channel.close()
            pairs.append((took * 1e6, run_c(bare, 20, "life")["median_ns"] / 1e3))
    finally:
        pool.close()
    what = "create, run once and destroy a bare KVM VM"
    note = "a ready enclave gets a region and answers; both sides' wake-ups included"
    figure = median_figure("pool_first_call", "us", pairs, what, backend=backend.name, note=note)
    return [figure.within(over_at_most(200, "us"))]
