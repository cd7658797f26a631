"""`cafe doctor`: is this machine fit for enclaves, and what to do where it is not."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

import typer

from cafe_lib.cli.console import JsonOption
from cafe_lib.cli.exits import REFUSED
from cafe_lib.client.problems import printable
from cafe_lib.doctor.examine import examine, render, worst
from cafe_lib.doctor.finding import State
from cafe_lib.doctor.machine import LocalMachine


def doctor(*, as_json: JsonOption = False) -> None:
    """Check this machine: KVM, TPM, processor, kernel, memory, tools; exits with 1 if something fails."""
    findings = examine(LocalMachine())
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        for line in render(findings):
            typer.echo(" " * (len(line) - len(line.lstrip())) + printable(line, 1000))
        count = Counter(finding.state for finding in findings)
        typer.echo(", ".join(f"{count[state]} {state}" for state in State))
    if worst(findings) is State.FAIL:
        raise typer.Exit(REFUSED)
