"""Many threads that call at once, on two cores with the enclave: how much is left, how fairly shared."""

from __future__ import annotations

import statistics

from figures import Bound, Figure, both, middle_pair, ratio_at_least
from local import CORES, compile_guest, released, run_lines, running, serving

from hypervisor_agent.enclave.backend import Backend
from hypervisor_agent.enclave.process import SparePool

_LIMITS = {2: 0.6, 8: 0.4, 100: 0.2}
_LEAST_SHARE = 0.1
"""Of the mean: a thread with less starves."""
_MILLISECONDS = 500


def measure_threads(backend: Backend, runs: int) -> list[Figure]:
    """calls_threads_N: calls per second of N threads; the baseline is one thread's, just before."""
    order = [each for threads in _LIMITS for each in (1, threads)]
    program, pool = compile_guest("threads", "echo"), SparePool(backend)
    try:
        with running(released("echo"), pool, *CORES) as enclave, serving(enclave) as path:
            answers = [run_lines(program, _MILLISECONDS, *order, CAFE_SOCKET=path) for _ in range(runs)]
    finally:
        pool.close()
    return [_figure(backend, threads, 2 * at, answers) for at, threads in enumerate(_LIMITS)]


def _figure(backend: Backend, threads: int, at: int, answers: list[list[dict[str, float]]]) -> Figure:
    pairs = [(run[at + 1]["calls_per_s"], run[at]["calls_per_s"]) for run in answers]
    ours = [run[at + 1] for run in answers]
    least = statistics.median(each["least"] / each["mean"] for each in ours)
    most = statistics.median(each["most"] / each["mean"] for each in ours)
    note = f"of any thread: least {least:.2f}, most {most:.2f} of the mean; higher is better"
    more = {"backend": backend.name, "note": note}
    figure = middle_pair(f"calls_threads_{threads}", "calls/s", pairs, "one thread's", **more)
    fair = Bound(f"no thread below {_LEAST_SHARE:g} of the mean", _LEAST_SHARE / max(least, 1e-9))
    enough = ratio_at_least(_LIMITS[threads])
    return figure.within(lambda value, baseline: both(enough(value, baseline), fair))
