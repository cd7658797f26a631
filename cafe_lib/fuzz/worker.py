"""Runs one worker: a process that tries one function in one way, watched for crashes and hangs."""

from __future__ import annotations

import enum
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from cafe_lib.errors import BuildError
from cafe_lib.fuzz.report import Progress, ReportFile, report_file

CHECK_FAILED: Final = 77  # STAND_IN_EXIT: one of our own checks
SANITIZER_FAILED: Final = 78
UNLIMITED: Final = 2**64 - 1
HANG: Final = "hang"
_LOOK_SECONDS: Final = 0.05
_MAX_DETAIL: Final = 16_000
_SUMMARY: Final = re.compile(r"^SUMMARY: \w+: (.*)$", re.MULTILINE)
_UNDEFINED: Final = re.compile(r"^.*runtime error: (.*)$", re.MULTILINE)
_CHECK: Final = re.compile(r"^cafe fuzz: (([a-z ]+?)(?:: .*| at .*| is .*)?)$", re.MULTILINE)
_FRAME: Final = re.compile(r"^ *#\d+ 0x[0-9a-f]+ in (.+) (\S+)$", re.MULTILINE)
_TOOLS: Final = ("libsanitizer/", "sanitizer_common", "/native/stand_in.c", "/usr/include/", "/usr/lib/")
_NUMBER: Final = re.compile(r"\b(?:0x[0-9a-f]+|\d+)\b")


class Phase(enum.StrEnum):
    """In which way a function is tried; `enum hostile_phase`, in that order."""

    STRUCTURED = "structured"
    RANDOM = "random"
    RACING = "racing"
    REPLIES = "replies"

    @property
    def number(self) -> int:
        """What a worker knows it by."""
        return list(Phase).index(self)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker is to do; ``milliseconds`` 0: no time limit."""

    program: Path
    function: int
    phase: Phase
    seed: int
    first: int = 0
    count: int = UNLIMITED
    milliseconds: int = 0
    rewrites: int = 0
    spared: int = 0  # bit i: function i is only called when it is the one to try


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong: a kind for the table, one line, and the tool's whole report."""

    kind: str
    summary: str
    detail: str

    @property
    def likeness(self) -> str:
        """The summary without the numbers that differ from one input to the next; its place stays."""
        text, separator, place = self.summary.rpartition(" in ")
        return _NUMBER.sub("N", text) + separator + (place if separator else _NUMBER.sub("N", place))


@dataclass(frozen=True, slots=True)
class Ending:
    """How a worker ended."""

    progress: Progress
    problem: Problem | None


@dataclass(frozen=True, slots=True)
class Settings:
    """How workers run: where their files lie, how long one input may take, whether giving up is a finding."""

    place: Path
    hang_seconds: float = 10
    allow_abort: bool = False


Watch = Callable[[Progress], None]


def run_worker(assignment: Assignment, settings: Settings, watch: Watch) -> Ending:
    """Run a worker to its end; ``watch`` hears how far it is. Raises BuildError if it cannot be run."""
    with (
        report_file(settings.place / "report") as report,
        tempfile.TemporaryFile() as errors,
        tempfile.TemporaryDirectory(prefix="cafe-fuzz-") as agent,
    ):
        environment = _environment(settings) | {"CAFE_SOCKET": f"{agent}/agent"}
        try:
            process = subprocess.Popen(
                _command(assignment, settings), stderr=errors, stdout=errors, env=environment
            )
        except OSError as error:
            raise BuildError(f"{assignment.program}: {error.strerror}") from error
        try:
            hung = _wait(process, report, settings.hang_seconds, watch)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        text = _text(errors)
    progress = report_of(settings)
    return Ending(progress, judge(process.returncode, text, hung=hung, done=progress.done))


def report_of(settings: Settings) -> Progress:
    """Read what the last worker left."""
    return Progress.parse((settings.place / "report").read_bytes())


def _command(assignment: Assignment, settings: Settings) -> list[str]:
    numbers = (
        assignment.function,
        assignment.phase.number,
        assignment.seed,
        assignment.first,
        assignment.count,
        assignment.milliseconds,
        assignment.rewrites,
        assignment.spared,
    )
    return [str(assignment.program), str(settings.place / "report"), *map(str, numbers)]


def _environment(settings: Settings) -> dict[str, str]:
    options = f"exitcode={SANITIZER_FAILED}"
    environment = os.environ | {
        "ASAN_OPTIONS": f"{options}:detect_leaks=0:handle_abort=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": f"{options}:print_stacktrace=1",
        "LC_ALL": "C",
    }
    environment.pop("CAFE_FUZZ_ALLOW_ABORT", None)
    return environment | ({"CAFE_FUZZ_ALLOW_ABORT": "1"} if settings.allow_abort else {})


def _wait(process: subprocess.Popen[bytes], report: ReportFile, seconds: float, watch: Watch) -> bool:
    """Wait for the end; True if one input took too long and the worker had to be ended."""
    last, since = -1, time.monotonic()
    while process.poll() is None:
        time.sleep(_LOOK_SECONDS)
        progress = report.read()
        watch(progress)
        if progress.index != last:
            last, since = progress.index, time.monotonic()
        elif time.monotonic() - since > seconds:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
    return False


def _text(errors: IO[bytes]) -> str:
    errors.seek(0)
    return errors.read(_MAX_DETAIL).decode(errors="replace")


def judge(code: int, text: str, *, hung: bool, done: bool) -> Problem | None:
    """Say what a worker's end means; None: it found nothing.

    :raises BuildError: it could not do its work.
    """
    if hung:
        return Problem(HANG, "one input took longer than it may", text)
    if code == 0 and done:
        return None
    if code == 2:  # noqa: PLR2004 - what the drivers' own usage errors end with
        raise BuildError(f"the fuzzing driver could not start: {text.strip()}")
    return _reported(code, text) or Problem("crash", _signal_name(code), text)


def _reported(code: int, text: str) -> Problem | None:
    """Find what a check or a sanitizer said before it ended the process."""
    if code == CHECK_FAILED and (check := _CHECK.search(text)):
        return Problem(check[2], check[1], text)
    if undefined := _UNDEFINED.search(text):
        return Problem("undefined", f"{undefined[1]}{_where(text)}", text)
    if summary := _SUMMARY.search(text):
        return Problem("memory", f"{summary[1].split(' ')[0]}{_where(text)}", text)
    return None


def _signal_name(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"the process ended with {code}"


def _where(text: str) -> str:
    """Name the innermost function of a stack trace that is not a tool's, with its place."""
    for name, place in _FRAME.findall(text):
        if not any(tool in place for tool in _TOOLS) and "/" in place:
            return f" in {name.partition('(')[0]} {place.rpartition('/')[2]}"
    return ""
