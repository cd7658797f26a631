"""The calls that Hyperlight's public benchmarks name, in the same shapes; compare_hyperlight.py runs both."""

from __future__ import annotations

from buffers import run_buffers
from figures import Figure, middle_pair
from local import compile_c, compile_guest, released, run_c, running, serving

from hypervisor_agent.enclave.backend import Backend
from hypervisor_agent.enclave.process import SparePool

_COUNT = 20_000
_CASES = {
    "call_echo_hello": ("echo", 0, "bare ping-pong", 'Echo("hello\\n"): string in, string out'),
    "call_add_with_callback": ("add", 0, "bare ping-pong", "Add(1, 41), which calls HostAdd: two crossings"),
    "call_24KiB_8KiB": ("exchange", 24_576, "ping-pong and 24 KiB in, 8 KiB out", "24 KiB in, 8 KiB out"),
}


def measure_cases(backend: Backend, runs: int) -> list[Figure]:
    """Echo, a callback, 24 and 8 KiB, and two buffers of 50 MiB."""
    program, pingpong = compile_guest("cases", "cases"), compile_c("pingpong", "pingpong.c")
    pool = SparePool(backend)
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in _CASES}
    try:
        with running(released("cases"), pool) as enclave, serving(enclave) as path:
            for _ in range(runs):
                for name, (which, moved, _, _) in _CASES.items():
                    base = run_c(pingpong, _COUNT, moved)
                    call = run_c(program, _COUNT, which, CAFE_SOCKET=path)
                    pairs[name].append((call["median_ns"], base["median_ns"]))
    finally:
        pool.close()
    figures = [
        middle_pair(name, "ns", pairs[name], what, backend=backend.name, note=note)
        for name, (_, _, what, note) in _CASES.items()
    ]
    return [*figures, _large_parameters(backend, runs)]


def _large_parameters(backend: Backend, runs: int) -> Figure:
    pairs = [(each["two_ns"] / 1e6, each["memcpy_two_ns"] / 1e6) for each in run_buffers(backend, runs)]
    note = "two ordinary buffers of 50 MiB in"
    what = "memcpy of as much, on large pages"
    return middle_pair("call_large_parameters", "ms", pairs, what, backend=backend.name, note=note)
