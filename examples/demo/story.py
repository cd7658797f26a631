"""What the demo prints: headings, the events of SBS and agent as they come, checks."""

from __future__ import annotations

import sys
import threading
import time

from processes import DemoError, Event

_PHASES = {"deployment": "deploy", "loading": "load"}


class Story:
    """Prints in one voice; events come from other threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._show_steps = False
        self.steps: list[tuple[str, int]] = []
        self._start = time.monotonic()

    def say(self, text: str = "") -> None:
        """Print one line."""
        with self._lock:
            print(text, flush=True)

    def chapter(self, title: str) -> None:
        """Print a heading with the seconds since the start."""
        self.say(f"\n[{time.monotonic() - self._start:5.1f} s] {title}")

    def progress(self, text: str) -> None:
        """Say on a terminal what is going on."""
        if sys.stderr.isatty():
            print(f"        ... {text}", file=sys.stderr, flush=True)

    def show_steps(self, *, on: bool) -> None:
        """Start or stop printing the steps of the paper as SBS and agent emit them."""
        with self._lock:
            self._show_steps = on

    def listen(self, event: Event) -> None:
        """Take one event of a program; only the steps are shown."""
        if event.get("event") != "step":
            return
        phase, step = str(event["phase"]), int(event["step"])
        with self._lock:
            if self._show_steps:
                self.steps.append((phase, step))
                line = f"{_PHASES[phase]:>8} {step:2}  {event['title']:<52} {event['ms']:9.2f} ms"
                print(f"{line}  {event['by']}", flush=True)

    def wait_for_steps(self, phase: str, steps: range, seconds: float = 5) -> None:
        """Wait until every one of these steps was shown; DemoError names those that were not."""
        deadline = time.monotonic() + seconds
        while missing := {(phase, step) for step in steps} - set(self.steps):
            if time.monotonic() > deadline:
                raise DemoError(f"no event for {sorted(missing)}")
            time.sleep(0.02)

    def check(self, what: str, *, holds: bool, found: str = "") -> None:
        """Print a check that held; DemoError if it did not."""
        if not holds:
            raise DemoError(f"{what}: {found or 'it does not hold'}")
        self.say(f"     ok  {what}{': ' + found if found else ''}")
