"""What a check says, and the port through which checks see a machine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class State(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result. ``why`` and ``todo`` are for people; "" when there is nothing to do."""

    name: str
    state: State
    found: str
    why: str
    todo: str = ""


@dataclass(frozen=True, slots=True)
class KvmFacts:
    """What /dev/kvm says: version of its API, and each capability asked for by number (0: absent)."""

    api_version: int
    capabilities: dict[int, int]


class Machine(Protocol):
    """A machine to look at. Nothing here raises: what cannot be had is None or empty."""

    def read(self, path: str) -> str | None:
        """Return a small text file, stripped; None if it cannot be read."""
        ...

    def names(self, path: str) -> tuple[str, ...]:
        """Return the names in a directory, sorted; empty if it cannot be read."""
        ...

    def may_use(self, path: str) -> bool | None:
        """Say whether this process may read and write a device; None if it is absent."""
        ...

    def kvm(self, capabilities: tuple[int, ...]) -> KvmFacts | None:
        """Ask /dev/kvm; None if it cannot be opened."""
        ...

    def program(self, name: str) -> str | None:
        """Return where a program is installed."""
        ...

    def file_exists(self, path: str) -> bool:
        """Say whether there is a file of this name."""
        ...

    def has_module(self, name: str) -> bool:
        """Say whether Python finds a module."""
        ...

    def memlock_bytes(self) -> int | None:
        """Return how much memory this process may lock; None: as much as it likes."""
        ...

    def core_scheduling(self) -> bool:
        """Say whether the kernel can keep strangers off a core's other thread."""
        ...


def ok(name: str, found: str, why: str) -> Finding:
    """Return a good finding."""
    return Finding(name, State.OK, found, why)


def warn(name: str, found: str, why: str, todo: str) -> Finding:
    """Return a finding that somebody should decide about."""
    return Finding(name, State.WARN, found, why, todo)


def fail(name: str, found: str, why: str, todo: str) -> Finding:
    """Return a finding that keeps this machine from its work."""
    return Finding(name, State.FAIL, found, why, todo)
