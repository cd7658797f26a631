"""Which SBS a command talks to, and as whom: flags, then the environment, then the configuration file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from cafe_lib.errors import MalformedError, NotFoundError, UnauthenticatedError

DEFAULT_FILE: Final = Path("~/.config/cafe/config.toml")
MAX_FILE_BYTES: Final = 64 * 1024
_HOW: Final = 'set CAFE_SBS_URL, give --sbs, or write `sbs = "https://..."` into the configuration file'

_Text = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class ConfigFile(BaseModel):
    """The keys of config.toml."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    sbs: _Text | None = None
    api_key: _Text | None = None
    ca_file: _Text | None = None


@dataclass(frozen=True, slots=True)
class Flags:
    """What the command line said; a key is never part of it, because other users can read it there."""

    sbs: str | None = None
    api_key_file: Path | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """An SBS, and who speaks."""

    url: str
    api_key: str | None = field(repr=False)
    ca_file: Path | None

    def require_key(self) -> str:
        """Return the key; raises UnauthenticatedError if there is none."""
        if self.api_key is None:
            raise UnauthenticatedError(
                "no API key was given",
                hint="set CAFE_API_KEY, give --api-key-file, or write `api_key` into the configuration file",
            )
        return self.api_key


def load_target(flags: Flags, environment: Mapping[str, str]) -> Target:
    """Decide whom to talk to.

    :raises MalformedError: a file that is not what it should be, or no address at all.
    :raises UnauthenticatedError: a file with a key that others can read.
    :raises NotFoundError: a file that was named and is not there.
    """
    file = _config_file(environment)
    url = flags.sbs or environment.get("CAFE_SBS_URL") or file.sbs
    if not url:
        raise MalformedError("no SBS was named", hint=_HOW)
    ca_file = flags.ca_file or environment.get("CAFE_CA_FILE") or file.ca_file
    return Target(url, _api_key(flags, environment, file), Path(ca_file) if ca_file else None)


def _api_key(flags: Flags, environment: Mapping[str, str], file: ConfigFile) -> str | None:
    if flags.api_key_file is not None:
        return _text(flags.api_key_file, private=True).strip()
    return environment.get("CAFE_API_KEY", "").strip() or file.api_key


def _config_file(environment: Mapping[str, str]) -> ConfigFile:
    named = environment.get("CAFE_CONFIG")
    path = Path(named) if named else DEFAULT_FILE.expanduser()
    if not named and not path.exists():
        return ConfigFile()
    try:
        config = ConfigFile.model_validate(tomllib.loads(_text(path, private=False)))
    except tomllib.TOMLDecodeError as error:
        raise MalformedError(f"{path}: {error}") from error
    except ValidationError as error:
        keys = ", ".join(str(part) for item in error.errors(include_input=False) for part in item["loc"])
        raise MalformedError(f"{path}: wrong keys or values: {keys}") from None  # its text may hold the key
    except RecursionError as error:
        raise MalformedError(f"{path}: nested too deeply") from error
    if config.api_key is not None:
        _text(path, private=True)
    return config


def _text(path: Path, *, private: bool) -> str:
    try:
        with path.open("rb") as file:
            if private and os.fstat(file.fileno()).st_mode & 0o077:
                raise UnauthenticatedError(
                    f"{path} holds a key and can be read by others", hint=f"chmod 600 {path}"
                )
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise NotFoundError(f"{path}: {error.strerror}") from error
    try:
        if len(data) <= MAX_FILE_BYTES:
            return data.decode()
    except UnicodeDecodeError:
        pass
    raise MalformedError(f"{path} is not a short text file")
