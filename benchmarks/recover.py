"""From a fault to the next good answer, through the real agent, which has a standby."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
from pathlib import Path

from agent import agent
from figures import Figure, median_figure, value_at_most
from local import compile_c, compile_guest, released, run_c

from hypervisor_agent.enclave.backend import Backend

_FAULTS = 5
"""In each run."""
_SETTLE_SECONDS = 0.05
_ANSWER_SECONDS = 30.0


async def _answer(program: asyncio.subprocess.Process) -> dict[str, float]:
    assert program.stdout is not None
    line = await asyncio.wait_for(program.stdout.readline(), _ANSWER_SECONDS)
    if not line:
        raise subprocess.CalledProcessError(await program.wait(), "recover")
    answer: dict[str, float] = json.loads(line)
    return answer


async def _faults(backend: Backend, count: int) -> list[dict[str, float]]:
    """Have a program fault so often, each time once a standby is there; raises TimeoutError."""
    path = compile_guest("recover", "echo")
    with tempfile.TemporaryDirectory(prefix="cafe-") as folder:
        socket = Path(folder) / "socket"
        async with agent(backend, released("echo"), socket) as standbys:
            program = await asyncio.create_subprocess_exec(
                path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"CAFE_SOCKET": str(socket)}
            )
            try:
                assert program.stdin is not None
                await _answer(program)
                answers = []
                for _ in range(count):
                    await standbys.ready()
                    await asyncio.sleep(_SETTLE_SECONDS)
                    program.stdin.write(b"\n")
                    answers.append(await _answer(program))
                return answers
            finally:
                if program.returncode is None:
                    program.kill()
                await program.wait()


def measure_recover(backend: Backend, runs: int) -> list[Figure]:
    """recover_fault, from before the call that faults; recover_fault_after_error, from its return."""
    bare, pairs = compile_c("barevm", "barevm.c"), []
    for _ in range(runs):
        base = run_c(bare, 20, "life")["median_ns"]
        pairs += [(answer, base / 1e6) for answer in asyncio.run(_faults(backend, _FAULTS))]
    figures = []
    notes = {
        "recover_fault": ("from_fault_ns", "from before the faulting call to the next good answer"),
        "recover_fault_after_error": (
            "from_error_ns",
            "from the faulting call's error to the next good answer",
        ),
    }
    for name, (key, note) in notes.items():
        times = [(answer[key] / 1e6, base) for answer, base in pairs]
        what = "create, run once and destroy a bare KVM VM"
        figure = median_figure(name, "ms", times, what, backend=backend.name, note=note)
        figures.append(figure.within(value_at_most(3, "ms")))
    return figures
