"""build.json: what a build directory holds, so that nobody has to guess, and no tool mixes two builds up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cafe_lib.errors import NotFoundError, ProtocolError
from cafe_lib.toolchain.project import Project

RECORD_FILE: Final = "build.json"
NATIVE_MARK: Final = b"cafe: NATIVE build, the secret code is NOT protected"
"""In every native library and in no other; native.c defines it."""
_MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """The part of build.json that tools go by; digests in hex, "" where there is no package."""

    mode: str
    secret_binary_id: str
    image_sha256: str


def image_digest(image: Path) -> str:
    """Return the SHA-256 of a linked image in hex.

    :raises NotFoundError: it cannot be read.
    """
    try:
        with image.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise NotFoundError(f"{image}: {error.strerror}") from error


def write_record(
    output: Path,
    project: Project,
    *,
    protected: bool,
    functions: Sequence[str],
    secret_binary_id: bytes = b"",
    image: Path | None = None,
) -> None:
    """Write ``output``/build.json."""
    record = {
        "name": project.file.name,
        "version": project.file.version,
        "mode": project.mode,
        "protected": protected,
        "secret_binary_id": secret_binary_id.hex(),
        "image_sha256": "" if image is None else image_digest(image),
        "functions": list(functions),
    }
    (output / RECORD_FILE).write_text(json.dumps(record, indent=1) + "\n")


def read_record(output: Path) -> BuildRecord:
    """Read ``output``/build.json.

    :raises NotFoundError: nothing was built there.
    :raises ProtocolError: it is not a build's record.
    """
    path = output / RECORD_FILE
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise NotFoundError(f"{path}: {error.strerror}", hint="run `cafe build` first") from error
    try:
        found = json.loads(text)
        fields = [found[key] for key in ("mode", "secret_binary_id", "image_sha256")]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ProtocolError(f"{path} is not what `cafe build` writes") from error
    if not all(isinstance(field, str) for field in fields):
        raise ProtocolError(f"{path} is not what `cafe build` writes")
    return BuildRecord(*fields)
