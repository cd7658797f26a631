"""What is wrong with a header: every problem at once, each with its place and a way to mend it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cafe_lib.errors import InterfaceError

MAX_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. ``path`` is the parameter and the way into its type: ``p.z.q[].p: const char *``."""

    place: str  # file:line
    function: str
    path: str
    what: str
    mend: str = ""

    def __str__(self) -> str:
        parts = [part for part in (self.place, self.function, self.path, self.what) if part]
        return ": ".join(parts) + (f"\n    mend: {self.mend}" if self.mend else "")


class ObstacleError(Exception):
    """A type that cannot be copied byte by byte; turned into a Problem where the function is known."""

    def __init__(self, path: str, what: str, mend: str) -> None:
        super().__init__(what)
        self.path = path
        self.what = what
        self.mend = mend


def refuse(problems: Iterable[Problem]) -> InterfaceError:
    """Make the error that lists them all."""
    listed = list(dict.fromkeys(problems))
    lines = [str(problem) for problem in listed[:MAX_SHOWN]]
    if len(listed) > MAX_SHOWN:
        lines.append(f"... and {len(listed) - MAX_SHOWN} more")
    return InterfaceError(
        "\n".join(lines), hint="mend the header; docs say which types can cross the boundary"
    )
