"""Large buffers: 64 MiB into the enclave, from memory that is shared with it and from ordinary memory."""

from __future__ import annotations

import functools

from figures import Figure, middle_pair, ratio_at_least
from local import compile_guest, released, run_c, running, serving

from hypervisor_agent.enclave.backend import Backend
from hypervisor_agent.enclave.process import SparePool

_BYTES = 64 << 20
_ROUNDS = 5
"""Of each kind in one run of the program, in turn; their median is the run's."""


@functools.cache
def run_buffers(backend: Backend, runs: int) -> tuple[dict[str, float], ...]:
    """Run buffers.c so often; medians in ns by name. Asked again, the same runs are meant."""
    program, pool = compile_guest("buffers", "cases"), SparePool(backend)
    try:
        with running(released("cases"), pool) as enclave, serving(enclave) as path:
            return tuple(run_c(program, _ROUNDS, CAFE_SOCKET=path) for _ in range(runs))
    finally:
        pool.close()


def measure_buffers(backend: Backend, runs: int) -> list[Figure]:
    """buffer_64MiB_in: one copy is needed, out of reach of whoever could still write to the buffer."""
    kinds = {"buffer_64MiB_in": "shared_ns", "buffer_64MiB_in_plain": "plain_ns"}
    notes = (
        "from cafe_alloc: one copy; higher is better",
        "from ordinary memory: two copies; higher is better",
    )
    answers, figures = run_buffers(backend, runs), []
    for (name, kind), note in zip(kinds.items(), notes, strict=True):
        pairs = [(_BYTES / each[kind], _BYTES / each["memcpy_ns"]) for each in answers]
        more = {"backend": backend.name, "note": note}
        figures.append(middle_pair(name, "GB/s", pairs, "memcpy of as much, on large pages", **more))
    return [figures[0].within(ratio_at_least(0.6)), figures[1]]
