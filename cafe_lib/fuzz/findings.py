"""Findings as files: what was tried, what went wrong, and what makes it happen again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cafe_lib.errors import BuildError
from cafe_lib.fuzz.worker import Phase

MAX_FILE_BYTES: Final = 1 << 20
_Word = Annotated[int, Field(ge=0, lt=2**64)]
_Text = Annotated[str, Field(max_length=MAX_FILE_BYTES)]


class Finding(BaseModel):
    """One finding. Inputs ``first`` to ``index`` of ``seed``, in one process, made it happen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: Literal["cafe fuzz 1"] = "cafe fuzz 1"
    interface_digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    function: _Text  # that was tried
    running: _Text  # when it happened; another one if a callback or a racing writer called it
    phase: Phase
    seed: _Word
    first: _Word
    index: _Word
    spared: _Word
    kind: _Text
    summary: _Text
    frame: dict[str, _Word]  # the fixed part, by parameter: its first eight bytes
    detail: _Text


@dataclass(frozen=True, slots=True)
class Saved:
    """A finding and its file."""

    finding: Finding
    path: Path

    def describe(self) -> dict[str, object]:
        """Return what the command prints about it."""
        return self.finding.model_dump(
            mode="json", exclude={"detail", "format", "interface_digest", "spared"}
        ) | {
            "file": str(self.path),
        }


def save_finding(finding: Finding, directory: Path) -> Saved:
    """Write a finding's file.

    :raises BuildError: the file cannot be written.
    """
    name = "".join(letter if letter.isalnum() else "_" for letter in finding.function)
    path = directory / f"{name}-{finding.phase}-{finding.seed}-{finding.index}.json"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path.write_text(finding.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise BuildError(f"{path}: {error.strerror}") from error
    return Saved(finding, path)


def load_finding(path: Path) -> Finding:
    """Read a finding's file.

    :raises BuildError: it cannot be read, or is not one.
    """
    try:
        with path.open("rb") as file:
            return Finding.model_validate_json(file.read(MAX_FILE_BYTES))
    except OSError as error:
        raise BuildError(f"{path}: {error.strerror}") from error
    except (ValidationError, RecursionError) as error:
        raise BuildError(f"{path} is not a finding of cafe fuzz") from error
