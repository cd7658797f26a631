"""Writes build/cases.json: each line of SECURITY-CASES.md that ran, its result and the tests that show it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CASE = re.compile(r"[A-E][0-9]{2}")
_cases = pytest.StashKey[dict[str, dict[str, object]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_cases] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("case"):
            if not mark.args or not all(CASE.fullmatch(name) for name in mark.args):
                raise pytest.UsageError(f"{item.nodeid}: case wants numbers such as A01, not {mark.args}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.when == "call" or report.outcome != "passed":
        for mark in item.iter_markers("case"):
            for name in mark.args:
                _record(item.config.stash[_cases], name, report.outcome, item.nodeid)
    return report


def _record(cases: dict[str, dict[str, object]], name: str, outcome: str, test: str) -> None:
    case = cases.setdefault(name, {"result": outcome, "tests": {}})
    case["tests"][test] = outcome  # type: ignore[index]
    outcomes = set(case["tests"].values())  # type: ignore[attr-defined]
    case["result"] = "failed" if "failed" in outcomes else "passed" if "passed" in outcomes else "skipped"


def pytest_sessionfinish(session: pytest.Session) -> None:
    cases = session.config.stash[_cases]
    if cases:
        path = ROOT / "build" / "cases.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(dict(sorted(cases.items())), indent=1) + "\n")
