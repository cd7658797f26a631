"""What `cafe fuzz` does: every function in every way, within a budget; findings are saved and go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial, reduce
from itertools import product
from operator import or_
from pathlib import Path
from typing import Final

from cafe_lib.errors import BuildError, InterfaceError
from cafe_lib.fuzz.findings import Finding, Saved, save_finding
from cafe_lib.fuzz.report import STATUSES, Progress
from cafe_lib.fuzz.worker import HANG, UNLIMITED, Assignment, Phase, Problem, Settings, run_worker
from cafe_lib.interface.model import Interface

MOST_FINDINGS: Final = 3  # of one function in one phase; more are mostly the same
_RACING_REPLAY_MILLISECONDS: Final = 20_000
_SPARED_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class Budget:
    """How much to try. ``iterations`` None: as many as fit into ``seconds``, which all phases share."""

    seconds: float
    iterations: int | None
    rewrites: int
    seed: int


@dataclass(slots=True)
class Tally:
    """What one function has been through."""

    function: str
    inputs: int = 0
    calls: int = 0
    callbacks: int = 0
    nested: int = 0
    rewrites: int = 0
    replies: int = 0
    ended: int = 0
    statuses: list[int] = field(default_factory=lambda: [0] * STATUSES)
    findings: int = 0

    def add(self, progress: Progress, phase: Phase) -> None:
        """Count what a worker has done."""
        if phase is Phase.REPLIES:
            self.replies += progress.inputs
        else:
            self.inputs += progress.inputs
            self.calls += progress.statuses[0]
            self.statuses = [a + b for a, b in zip(self.statuses, progress.statuses, strict=True)]
        self.callbacks += progress.callbacks
        self.nested += progress.nested
        self.rewrites += progress.rewrites
        self.ended += progress.ended


@dataclass(frozen=True, slots=True)
class Programs:
    """The two drivers, or the one that a replay needs: the hostile guest, the hostile enclave's caller."""

    guest: Path | None
    caller: Path | None

    def of(self, phase: Phase) -> Path:
        """Return the one that plays a phase. Raises BuildError if it was not built."""
        program = self.caller if phase is Phase.REPLIES else self.guest
        if program is None:
            raise BuildError(f"nothing was built for {phase} inputs")
        return program


Tell = Callable[[str, Phase, Progress], None]


_Key = tuple[int, str, str]


@dataclass(frozen=True, slots=True)
class _Found:
    """What a worker ended with, and what makes it happen again."""

    assignment: Assignment
    progress: Progress
    problem: Problem

    @property
    def entry(self) -> int:
        """The function that ran: not always the one that was tried."""
        return self.progress.entry

    @property
    def key(self) -> _Key:
        """What tells findings apart."""
        return self.entry, self.problem.kind, self.problem.likeness


def _bit(function: int) -> int:
    return 1 << function if function < _SPARED_BITS else 0


@dataclass(frozen=True, slots=True)
class Campaign:
    """One run of the command."""

    interface: Interface
    programs: Programs
    budget: Budget
    settings: Settings
    findings_dir: Path

    def run(self, tell: Tell) -> tuple[list[Tally], list[Saved]]:
        """Try everything; ``tell`` hears of progress. Raises BuildError if a driver cannot be run."""
        tallies = [Tally(function.display) for function in self.interface.functions]
        saved: dict[tuple[int, str, str], Saved] = {}
        for phase, function in product(Phase, range(len(tallies))):  # what can be repeated best comes first
            for one in self._phase(function, phase, tallies, tell, [*saved]):
                if one.key not in saved:
                    saved[one.key] = save_finding(self._finding(one), self.findings_dir)
                    tallies[one.entry].findings += 1
        return tallies, [*saved.values()]

    def _phase(
        self, function: int, phase: Phase, tallies: list[Tally], tell: Tell, known: Iterable[_Key]
    ) -> Iterator[_Found]:
        """Try one function in one way; go on behind what is found, without the function that had it."""
        assignment = self._assignment(function, phase, [entry for entry, *_ in known])
        watch = partial(tell, tallies[function].function, phase)
        for _ in range(MOST_FINDINGS):
            ending = run_worker(assignment, self.settings, watch)
            tallies[function].add(ending.progress, phase)
            if ending.problem is None:
                return
            index = ending.progress.index
            found = _Found(
                self._narrow(assignment, index, ending.problem.kind), ending.progress, ending.problem
            )
            yield found
            if ending.problem.kind == HANG:
                return  # another one costs as much time again
            left = max(assignment.count - (index + 1 - assignment.first), 0)
            assignment = dataclasses.replace(
                assignment, first=index + 1, count=left, spared=assignment.spared | _bit(found.entry)
            )

    def _assignment(self, function: int, phase: Phase, spared: Iterable[int]) -> Assignment:
        budget = self.budget
        share = budget.seconds / (len(self.interface.functions) * len(Phase))
        return Assignment(
            self.programs.of(phase),
            function,
            phase,
            budget.seed,
            count=UNLIMITED if budget.iterations is None or phase is Phase.STRUCTURED else budget.iterations,
            milliseconds=max(1, round(share * 1000)) if budget.iterations is None else 0,
            rewrites=budget.rewrites,
            spared=reduce(or_, map(_bit, spared), 0),
        )

    def _narrow(self, assignment: Assignment, index: int, kind: str) -> Assignment:
        """Find out whether the last input alone is enough."""
        alone = dataclasses.replace(assignment, first=index, count=1, milliseconds=0)
        if kind != HANG and assignment.phase in (Phase.STRUCTURED, Phase.RANDOM):
            again = run_worker(alone, self.settings, lambda _: None)
            if again.problem is not None:
                return alone
        return dataclasses.replace(assignment, count=index + 1 - assignment.first, milliseconds=0)

    def _finding(self, found: _Found) -> Finding:
        assignment, function = found.assignment, self.interface.functions[found.assignment.function]
        names = [param.name or str(number) for number, param in enumerate(function.params)]
        return Finding(
            interface_digest=self.interface.digest().hex(),
            function=function.display,
            running=self.interface.functions[found.entry].display,
            phase=assignment.phase,
            seed=assignment.seed,
            first=assignment.first,
            index=found.progress.index,
            spared=assignment.spared,
            kind=found.problem.kind,
            summary=found.problem.summary,
            frame=dict(zip(names, found.progress.fields, strict=False)),
            detail=found.problem.detail,
        )

    def replay(self, finding: Finding, tell: Tell) -> Problem | None:
        """Do again what made a finding; None: this time nothing went wrong.

        :raises InterfaceError: it was found with another interface.
        """
        if finding.interface_digest != self.interface.digest().hex():
            raise InterfaceError("the finding belongs to another state of the headers")
        names = [function.display for function in self.interface.functions]
        if finding.function not in names:
            raise InterfaceError(f"there is no function {finding.function}")
        racing = finding.phase is Phase.RACING
        assignment = Assignment(
            self.programs.of(finding.phase),
            names.index(finding.function),
            finding.phase,
            finding.seed,
            0 if racing else finding.first,
            UNLIMITED if racing else finding.index + 1 - finding.first,
            milliseconds=_RACING_REPLAY_MILLISECONDS if racing else 0,
            spared=finding.spared,
        )
        watch = partial(tell, finding.function, finding.phase)
        return run_worker(assignment, self.settings, watch).problem
