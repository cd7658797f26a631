"""Many threads that call at once, on two cores with the enclave: how much is left, how fairly shared."""

from __future__ import annotations

import statistics

from figures import Bound, Figure, both, median_figure, ratio_at_least
from local import CORES, compile_guest, released, run_lines, running, serving

from hypervisor_agent.enclave.backend import Backend
from hypervisor_agent.enclave.process import SparePool

_LIMITS = {2: 0.6, 8: 0.4, 100: 0.2}
_MILLISECONDS = {2: 400, 8: 400, 100: 1500}
"""Of a measurement: long enough for everybody's turn to come round several times."""
_LEAST_SHARE = 0.1
"""Of the mean: a thread with less starves."""
_Measured = list[dict[str, float]]


def measure_threads(backend: Backend, runs: int) -> list[Figure]:
    """calls_threads_N: calls per second of N threads; the baseline is one thread in the same process."""
    program, pool = compile_guest("threads", "echo"), SparePool(backend)
    alone: _Measured = []
    crowds: dict[int, _Measured] = {threads: [] for threads in _LIMITS}
    try:
        with running(released("echo"), pool, *CORES) as enclave, serving(enclave) as path:
            for _ in range(runs):
                for threads, crowd in crowds.items():
                    lasts = _MILLISECONDS[threads]
                    one, many = run_lines(program, lasts, 1, threads, CAFE_SOCKET=path)
                    alone.append(one)
                    crowd.append(many)
    finally:
        pool.close()
    one_thread = statistics.median(each["calls_per_s"] for each in alone)
    return [_figure(backend, one_thread, threads, crowd) for threads, crowd in crowds.items()]


def _figure(backend: Backend, one_thread: float, threads: int, crowd: _Measured) -> Figure:
    pairs = [(each["calls_per_s"], one_thread) for each in crowd]
    least = statistics.median(each["least"] / each["mean"] for each in crowd)
    most = statistics.median(each["most"] / each["mean"] for each in crowd)
    note = f"of any thread: least {least:.2f}, most {most:.2f} of the mean; higher is better"
    name, what = f"calls_threads_{threads}", "one thread's"
    figure = median_figure(name, "calls/s", pairs, what, backend=backend.name, note=note)
    fair = Bound(f"no thread below {_LEAST_SHARE:g} of the mean", _LEAST_SHARE / max(least, 1e-9))
    enough = ratio_at_least(_LIMITS[threads])
    return figure.within(lambda value, baseline: both(enough(value, baseline), fair))
