"""What the agent did, as JSON lines on standard output, one line as each thing happens."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

DEPLOYMENT = {
    1: "the user runs the app",
    2: "the library passes SecretBinaryID to the agent",
    3: "channel and shared secrets",
    5: "the TPM quotes",
    6: "the agent sends SignedDigest",
    9: "the agent sends VM ID and SecretBinaryID",
}
LOADING = {
    1: "take in the ciphertext",
    2: "isolate the memory",
    3: "verify the HMAC and decrypt",
    4: "relocate and seal",
    5: "return the result",
}
_TITLES = {"deployment": DEPLOYMENT, "loading": LOADING}


class Steps:
    """Writes the paper's steps and other events; silent when there is no stream."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def step(self, phase: str, step: int, milliseconds: float) -> None:
        """Report a step of the paper that has just been done, with how long it took."""
        self.event("step", phase=phase, step=step, title=_TITLES[phase][step], ms=round(milliseconds, 3))

    def event(self, kind: str, /, **fields: str | float | None) -> None:
        """Write one line; ``at`` is nanoseconds since the epoch. Never give it a secret."""
        if self._stream is None:
            return
        line = json.dumps({"event": kind, **fields, "at": time.time_ns(), "by": "agent"})
        with self._lock:
            print(line, file=self._stream, flush=True)

    @contextmanager
    def timed(self, phase: str, step: int) -> Iterator[None]:
        """Time the block; nothing is reported when it raises."""
        start = time.perf_counter()
        yield
        self.step(phase, step, (time.perf_counter() - start) * 1000)


def standard_output(*, enabled: bool) -> Steps:
    """Return Steps on standard output, or silent ones."""
    return Steps(sys.stdout if enabled else None)
