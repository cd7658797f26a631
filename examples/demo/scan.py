"""Searches the memory of running processes for secret code and constants.

As a program it takes a :class:`Task` as JSON on standard input and prints what it found: the VMM lets nobody
but root look into it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cafe_lib.toolchain.leak import forget_known
from cafe_lib.toolchain.leak_patterns import WINDOWS, LeakKind, read_secrets
from cafe_lib.toolchain.leak_scan import find_rows

_PIECE = 16 << 20
_OVERLAP = 64
_KINDS = (LeakKind.CODE, LeakKind.CONSTANT)


@dataclass(frozen=True)
class Task:
    """What to look for, and in which groups of processes. ``planted`` and ``control`` in hex."""

    objects: list[str]
    exported: list[str]
    planted: str
    control: str
    groups: list[list[int]]


@dataclass(frozen=True)
class Found:
    """How often what was searched for occurs: code windows, constant windows, and the planted bytes."""

    scanned_bytes: int
    code: int
    constants: int
    planted: int
    control: int


class Scanner:
    """Knows every window of the secret objects, one planted constant, and one pattern that is public."""

    def __init__(self, task: Task) -> None:
        secrets = read_secrets([Path(name) for name in task.objects], task.exported)
        for path in _system_libraries():  # what compilers write everywhere, such as a copy of 64 bytes
            forget_known(secrets, path.read_bytes())
        self._tables = [(WINDOWS[kind], secrets.windows[kind]) for kind in _KINDS]
        self._planted, self._control = bytes.fromhex(task.planted), bytes.fromhex(task.control)

    def scan(self, pids: list[int]) -> Found:
        """Read everything these processes have mapped."""
        size = code = constants = planted = control = 0
        for pid in pids:
            for piece in _memory(pid):
                hits = [number for number, _, _ in find_rows(self._tables, piece)]
                size += len(piece)
                code += hits.count(0)
                constants += hits.count(1)
                planted += piece.count(self._planted)
                control += piece.count(self._control)
        return Found(size, code, constants, planted, control)


def scan_as_root(task: Task) -> list[Found]:
    """Scan each group of processes, through sudo where this process is not root's."""
    command = [*(["sudo"] if os.geteuid() else []), sys.executable, __file__]
    done = subprocess.run(
        command, input=json.dumps(asdict(task)), stdout=subprocess.PIPE, text=True, check=True
    )
    return [Found(**found) for found in json.loads(done.stdout)]


def descendants(pid: int) -> list[int]:
    """Return the process and all that it started, directly or not."""
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return [pid, *(number for child in children for number in descendants(child))]


def _system_libraries() -> set[Path]:
    """Return the C library and the dynamic linker, as this process has them mapped."""
    words = Path("/proc/self/maps").read_text().split()
    return {Path(word) for word in words if Path(word).name.startswith(("libc.so", "libc-", "ld-linux"))}


def _memory(pid: int) -> Iterator[bytes]:
    """Yield every readable mapping, in pieces that overlap so that no window is cut."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, permissions, *rest = line.split()
            if permissions[0] != "r" or rest[-1] in ("[vvar]", "[vsyscall]", "[vvar_vclock]"):
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            for place in range(start, end, _PIECE - _OVERLAP):
                try:
                    memory.seek(place)
                    yield memory.read(min(_PIECE, end - place))
                except OSError:  # a device, or gone meanwhile
                    break


if __name__ == "__main__":
    asked = Task(**json.load(sys.stdin))
    scanner = Scanner(asked)
    print(json.dumps([asdict(scanner.scan(pids)) for pids in asked.groups]))
