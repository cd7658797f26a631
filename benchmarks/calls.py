"""A call from one thread: nothing or 64 bytes across, on two cores, and with both sides on one."""

from __future__ import annotations

from figures import Figure, middle_pair, ratio_at_most, value_at_most
from local import GUEST_CORE, compile_c, compile_guest, released, run_c, running, serving

from hypervisor_agent.enclave.backend import Backend
from hypervisor_agent.enclave.process import SparePool

_BARE = "bare ping-pong"
_NOTES = {
    "call_empty": "void nothing(void), through the stub",
    "call_64B": "64 bytes in, 64 out, through the stub",
}
_TURNS = 4
"""In each run: a virtual machine's cores are now close to each other, now far."""
_Answers = dict[str, list[dict[str, float]]]


def _interleaved(backend: Backend, runs: int) -> _Answers:
    """Run the two baselines and the two calls in turn, so that what disturbs one disturbs all."""
    pool = SparePool(backend)
    answers: _Answers = {"bare": [], "same bytes": [], "call_empty": [], "call_64B": []}
    try:
        with running(released("echo"), pool) as enclave, serving(enclave) as path:
            program, pingpong = compile_guest("call", "echo"), compile_c("pingpong", "pingpong.c")
            count, turns = (50_000, _TURNS * runs) if backend.name == "kvm" else (300, runs)
            for _ in range(turns):
                answers["bare"].append(run_c(pingpong, 50_000))
                answers["call_empty"].append(run_c(program, count, "empty", CAFE_SOCKET=path))
                answers["same bytes"].append(run_c(pingpong, 50_000, 64))
                answers["call_64B"].append(run_c(program, count, "64", CAFE_SOCKET=path))
    finally:
        pool.close()
    return answers


def _against(answers: _Answers, call: str, baseline: str, of: str) -> list[tuple[float, float]]:
    both = zip(answers[call], answers[baseline], strict=True)
    return [(value[of], base[of]) for value, base in both]


def measure_calls(backend: Backend, runs: int) -> list[Figure]:
    """call_empty and call_64B under KVM, with p99; in the emulator call_64B alone."""
    answers = _interleaved(backend, runs)
    if backend.name != "kvm":
        return [_median(answers, "call_64B", backend.name)]
    figures = []
    for call in _NOTES:
        figures.append(_median(answers, call, "kvm").within(ratio_at_most(1.3)))
        figures.append(_tail(answers, call).within(ratio_at_most(3)))
    same, what = _against(answers, "call_64B", "same bytes", "median_ns"), f"{_BARE} and 64 bytes each way"
    note = "the same calls against a ping-pong that moves as much"
    return [*figures, middle_pair("call_64B_kvm_same_bytes", "ns", same, what, backend="kvm", note=note)]


def _median(answers: _Answers, call: str, backend: str) -> Figure:
    pairs = _against(answers, call, "bare", "median_ns")
    return middle_pair(f"{call}_{backend}", "ns", pairs, _BARE, backend=backend, note=_NOTES[call])


def _tail(answers: _Answers, call: str) -> Figure:
    pairs, what = _against(answers, call, "bare", "p99_ns"), f"{_BARE}'s p99"
    return middle_pair(f"{call}_kvm_p99", "ns", pairs, what, backend="kvm", note=_NOTES[call])


def measure_one_core(backend: Backend, runs: int) -> list[Figure]:
    """call_one_core: whoever waits must let the other side run."""
    program, futexpong = compile_guest("call", "echo"), compile_c("futexpong", "futexpong.c")
    pool, pairs = SparePool(backend), []
    try:
        with running(released("echo"), pool, GUEST_CORE) as enclave, serving(enclave) as path:
            for _ in range(runs):
                base = run_c(futexpong, 20_000)
                call = run_c(program, 20_000, "empty", CAFE_SOCKET=path)
                pairs.append((call["mean_ns"] / 1e3, base["mean_ns"] / 1e3))
    finally:
        pool.close()
    note = "guest thread and enclave pinned to the same core; mean"
    what = "two processes that hand over by futex there"
    figure = middle_pair("call_one_core", "us", pairs, what, backend=backend.name, note=note)
    return [figure.within(value_at_most(25, "us"))]
