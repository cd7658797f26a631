"""`cafe fuzz`: attack a project's own interface, from both sides."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from cafe_lib.cli.console import JsonOption, progress
from cafe_lib.cli.exits import REFUSED
from cafe_lib.cli.output import Rows, show
from cafe_lib.client.problems import printable
from cafe_lib.toolchain.project import Project, load_project

if TYPE_CHECKING:
    from cafe_lib.fuzz.campaign import Budget, Campaign, Tally, Tell
    from cafe_lib.fuzz.findings import Finding, Saved
    from cafe_lib.fuzz.report import Progress
    from cafe_lib.fuzz.worker import Phase, Settings

_COLUMNS = ("function", "inputs", "calls", "refused", "rewrites", "callbacks", "replies", "findings")
_MAX_SEED = 2**63


def fuzz(  # noqa: PLR0913, PLR0917 - the options of a command
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where cafe.toml is.")] = Path(),
    seconds: Annotated[float, typer.Option(min=0.1, help="For everything together.")] = 30,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Random inputs per function and way, whatever time it takes.")
    ] = None,
    rewrites: Annotated[int, typer.Option(min=0, help="Of a racing writer, per function, at least.")] = 10**6,
    seed: Annotated[int | None, typer.Option(min=0, max=_MAX_SEED, help="To repeat a run.")] = None,
    replay: Annotated[Path | None, typer.Option(help="Do again what a finding's file says.")] = None,
    hang_seconds: Annotated[float, typer.Option(min=0.5, help="How long one input may take.")] = 10,
    *,
    allow_abort: Annotated[
        bool, typer.Option("--allow-abort", help="Secret code that gives up is no finding.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Attack the interface: hostile frames, racing writers, forged replies. Runs the secret code natively."""
    from cafe_lib.fuzz.campaign import Budget  # noqa: PLC0415 - libclang: slow to import
    from cafe_lib.fuzz.findings import load_finding  # noqa: PLC0415
    from cafe_lib.fuzz.worker import Phase, Settings  # noqa: PLC0415

    project = load_project(directory.resolve())
    place = project.root / "build" / "fuzz"
    budget = Budget(seconds, iterations, rewrites, secrets.randbelow(2**32) if seed is None else seed)
    settings = Settings(place, hang_seconds, allow_abort=allow_abort)
    finding = None if replay is None else load_finding(replay)
    phases = set(Phase) if finding is None else {finding.phase}
    campaign = _prepare(project, budget, settings, phases, quiet=as_json)
    if finding is not None:
        _replay(campaign, finding, as_json=as_json)
        return
    with _bar(quiet=as_json) as tell:
        tallies, saved = campaign.run(tell)
    _print(tallies, saved, budget.seed, directory, as_json=as_json)
    if saved:
        raise typer.Exit(REFUSED)


def _prepare(
    project: Project, budget: Budget, settings: Settings, phases: set[Phase], *, quiet: bool
) -> Campaign:
    """Build what the phases need."""
    from cafe_lib.fuzz.campaign import Campaign, Programs  # noqa: PLC0415
    from cafe_lib.fuzz.worker import Phase  # noqa: PLC0415
    from cafe_lib.fuzz.workshop import build_caller, build_guest, open_workshop  # noqa: PLC0415
    from cafe_lib.toolchain.workshop import read_interface  # noqa: PLC0415

    with progress(quiet=quiet) as report:
        report("reading the interface")
        interface = read_interface(project)
        shop = open_workshop(project, settings.place)
        report("building the hostile guest")
        guest = build_guest(shop, interface) if phases - {Phase.REPLIES} else None
        report("building the hostile enclave")
        caller = build_caller(shop, interface) if Phase.REPLIES in phases else None
    return Campaign(interface, Programs(guest, caller), budget, settings, settings.place / "findings")


@contextmanager
def _bar(*, quiet: bool) -> Iterator[Tell]:
    """Show how far the present worker is, on a terminal only."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _function, _phase, _progress: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting")

        def tell(function: str, phase: Phase, done: Progress) -> None:
            of = f" of {done.total}" if done.total else ""
            rewrites = f", {done.rewrites} rewrites" if done.rewrites else ""
            bar.update(task, description=f"{function}: {phase.value}, input {done.index}{of}{rewrites}")

        yield tell


def _print(tallies: list[Tally], saved: list[Saved], seed: int, directory: Path, *, as_json: bool) -> None:
    rows = [
        {
            "function": tally.function,
            "inputs": tally.inputs,
            "calls": tally.calls,
            "refused": tally.inputs - tally.calls - tally.ended,
            "ended": tally.ended,
            "rewrites": tally.rewrites,
            "callbacks": tally.callbacks,
            "nested": tally.nested,
            "replies": tally.replies,
            "findings": tally.findings,
        }
        for tally in tallies
    ]
    if as_json:
        found = [one.describe() for one in saved]
        typer.echo(json.dumps({"seed": seed, "functions": rows, "findings": found}))
        return
    show(Rows(_COLUMNS, rows), as_json=False)
    for one in saved:
        finding = one.finding
        typer.echo(f"{finding.running}: {finding.kind}: {printable(finding.summary, 1000)}")
        frame = ", ".join(f"{name}={value:#x}" for name, value in finding.frame.items())
        typer.echo(
            f"  {finding.phase} input {finding.index} for {finding.function}: {frame or 'no parameters'}"
        )
        typer.echo(f"  cafe fuzz {directory} --replay {one.path}")
    typer.echo(f"seed {seed}: " + (f"{len(saved)} found" if saved else "nothing found"))


def _replay(campaign: Campaign, finding: Finding, *, as_json: bool) -> None:
    with _bar(quiet=as_json) as tell:
        problem = campaign.replay(finding, tell)
    if as_json:
        found = None if problem is None else {"kind": problem.kind, "summary": problem.summary}
        typer.echo(json.dumps({"function": finding.running, "found": found}))
    elif problem is None:
        typer.echo(f"{finding.running}: this time nothing went wrong")
    else:
        typer.echo(f"{finding.running}: {problem.kind}: {printable(problem.summary, 1000)}")
        typer.echo("\n".join(printable(line, 1000) for line in problem.detail.splitlines()))
    if problem is not None:
        raise typer.Exit(REFUSED)
