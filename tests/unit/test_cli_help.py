"""The command line explains itself, and the documents name only what it has."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from cafe_lib.cli.main import app
from hypervisor_agent.__main__ import app as agent_app
from sbs_server.__main__ import app as sbs_app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    *sorted(path for part in ("tutorial", "how-to") for path in (ROOT / "docs" / part).glob("*.md")),
]
PROGRAMS = {"cafe": app, "cafe-sbs": sbs_app, "cafe-agent": agent_app}


def _commands(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, (*path, name))


ALL = dict(_commands(typer.main.get_command(app)))
LEAVES = [path for path, command in ALL.items() if not hasattr(command, "commands")]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_and_option_has_help(path: tuple[str, ...]) -> None:
    command = ALL[path]
    assert command.help
    for parameter in command.params:
        assert parameter.help, f"{parameter.name} of cafe {' '.join(path)}"


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_speaks_json(path: tuple[str, ...]) -> None:
    assert "--json" in _options(path)


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_no_command_takes_a_key_as_an_argument(path: tuple[str, ...]) -> None:
    assert not {"--api-key", "--key", "--password", "--token"} & _options(path)


def _options(path: tuple[str, ...]) -> set[str]:
    return _options_of(ALL[path])


def _options_of(command: object) -> set[str]:
    parameters = getattr(command, "params", [])
    return {option for parameter in parameters for option in parameter.opts} | {"--help"}


def _named(program: str, text: str) -> Iterator[list[str]]:
    """Yield the words of each call of a program: in backquotes, in $(...), or as a line of code."""
    text = re.sub(r"\\\n\s*", " ", text)
    for pattern in (rf"[`(]{program} ([^`)\n]+)[`)]", rf"^\$? ?{program} ([^\n]+)$"):
        for line in re.findall(pattern, text, re.MULTILINE):
            yield shlex.split(line, comments=True)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_name_commands_and_options_that_exist(document: Path, program: str) -> None:
    commands = dict(_commands(typer.main.get_command(PROGRAMS[program])))
    for words in _named(program, document.read_text()):
        path = tuple(words[:2]) if tuple(words[:2]) in commands else tuple(words[:1])
        assert path in commands, f"{program} {' '.join(words)}"
        own = words[: words.index("--")] if "--" in words else words
        options = {word.partition("=")[0] for word in own if word.startswith("--")}
        assert options <= _options_of(commands[path]), f"{program} {' '.join(words)}"


def test_the_documents_are_read() -> None:
    found = [words for path in DOCUMENTS for words in _named("cafe", path.read_text())]
    assert len(found) > 30
