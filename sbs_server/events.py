"""What the SBS did, as JSON lines on standard output, one line as each thing happens."""

from __future__ import annotations

import json
import time
from typing import Final, TextIO

TITLES: Final = {
    4: "the SBS sends a nonce",
    7: "the SBS verifies it with the host's AK",
    8: "the SBS sends AttestResult",
    10: "the SBS checks the licence and encrypts",
    11: "the SBS streams ciphertext and HMAC",
}


class StepEvents:
    """See the port `Steps`; silent when there is no stream."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def step(self, number: int, milliseconds: float) -> None:
        """See the port."""
        ms = round(milliseconds, 3)
        self.event("step", phase="deployment", step=number, title=TITLES[number], ms=ms)

    def event(self, kind: str, **fields: str | float) -> None:
        """Write one line; `at` is nanoseconds since the epoch. Never give it a secret."""
        if self._stream is not None:
            line = json.dumps({"event": kind, **fields, "at": time.time_ns(), "by": "sbs"})
            print(line, file=self._stream, flush=True)
