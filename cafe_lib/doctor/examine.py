"""Every check, in the order in which people should read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from cafe_lib.doctor.cpu import check_clock, check_instructions, check_smt, check_vulnerabilities
from cafe_lib.doctor.finding import Finding, Machine, State
from cafe_lib.doctor.host import check_kernel, check_kvm, check_memory, check_tpm
from cafe_lib.doctor.tools import check_tools

CHECKS: Final[tuple[Callable[[Machine], Iterator[Finding]], ...]] = (
    check_kvm,
    check_tpm,
    check_instructions,
    check_kernel,
    check_memory,
    check_smt,
    check_vulnerabilities,
    check_clock,
    check_tools,
)


def examine(machine: Machine) -> list[Finding]:
    """Run every check."""
    return [finding for check in CHECKS for finding in check(machine)]


def worst(findings: list[Finding]) -> State:
    """Return the worst state found."""
    order = list(State)
    return max((finding.state for finding in findings), key=order.index, default=State.OK)


def render(findings: list[Finding]) -> list[str]:
    """Return lines for people: what is not well says why it matters and what to do."""
    width = max((len(finding.name) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:4}  {finding.name:{width}}  {finding.found}")
        if finding.state is not State.OK:
            margin = " " * (width + 8)
            lines += [f"{margin}why: {finding.why}", f"{margin}do:  {finding.todo}"]
    return lines
