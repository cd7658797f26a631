"""The command line explains itself, and the documents name only what it has."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from cafe_lib.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    *sorted(path for part in ("tutorial", "how-to") for path in (ROOT / "docs" / part).glob("*.md")),
]
GROUP = typer.main.get_command(app)


def _commands(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, (*path, name))


ALL = dict(_commands(GROUP))
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
    return {option for parameter in ALL[path].params for option in parameter.opts}


def _named(text: str) -> Iterator[list[str]]:
    """Yield the words of each `cafe ...` in code: in backquotes, or as a line of a block."""
    text = re.sub(r"\\\n\s*", " ", text)
    patterns = (r"`cafe ([^`\n]+)`", r"^\$? ?cafe ([^\n]+)$")
    for line in (found for pattern in patterns for found in re.findall(pattern, text, re.MULTILINE)):
        yield shlex.split(line, comments=True)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_name_commands_and_options_that_exist(document: Path) -> None:
    for words in _named(document.read_text()):
        path = tuple(words[:2]) if tuple(words[:2]) in ALL else tuple(words[:1])
        assert path in ALL, f"cafe {' '.join(words)}"
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        if path in LEAVES:
            assert options <= {*_options(path), "--help"}, f"cafe {' '.join(words)}"
