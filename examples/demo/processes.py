"""Starts the installed programs, forwards the events they emit, and ends every one of them."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

BIN = Path(sys.executable).parent
Event = dict[str, Any]


class DemoError(Exception):
    """A program did something other than the demo needs; the message quotes it."""


def run_json(*command: str, env: Mapping[str, str] | None = None) -> Any:  # noqa: ANN401 - any JSON value
    """Run an installed console script with ``--json`` and return what it prints."""
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:], "--json"],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DemoError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr}{done.stdout}")
    return json.loads(done.stdout) if done.stdout.strip() else None


class Service:
    """A running program whose standard output is JSON lines."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, listener: Callable[[Event], None]
    ) -> None:
        self.name, self.log = name, log
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._listener = listener
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, text=True
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                self._events.put(event)
                self._listener(event)

    def wait_for(self, ready: Callable[[], bool], seconds: float = 30) -> None:
        """Wait until ``ready`` says yes; DemoError with the end of the log if it ends or never is."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = self.log.read_text(errors="replace")[-2000:]
                raise DemoError(f"{self.name} did not start:\n{tail}")
            time.sleep(0.02)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Ask it to end, then insist."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(5)


class Services(ExitStack):
    """All programs of one demo, ended in reverse order."""

    def start(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        listener: Callable[[Event], None] = lambda _: None,
    ) -> Service:
        """Start one and have it ended with the others."""
        return self.enter_context(Service(name, command, folder / f"{name}.log", listener))
