"""Gives a command its SBS: the flags that every such command has, the client, and the printed result."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Concatenate, Final

import typer

from cafe_lib.cli.config import Flags, load_target
from cafe_lib.cli.console import JsonOption
from cafe_lib.cli.output import Result, show
from cafe_lib.client.sbs import SbsClient
from cafe_lib.errors import CafeError

_SbsOption = Annotated[
    str | None, typer.Option("--sbs", metavar="URL", help="Address of the SBS; or CAFE_SBS_URL.")
]
_KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file", metavar="FILE", help="File (0600) that holds the API key; or CAFE_API_KEY."
    ),
]
_CaOption = Annotated[
    Path | None,
    typer.Option("--ca-file", metavar="FILE", help="CA certificates to trust (PEM); or CAFE_CA_FILE."),
]
_KEYWORD: Final = inspect.Parameter.KEYWORD_ONLY
_FLAGS: Final = (
    inspect.Parameter("sbs", _KEYWORD, default=None, annotation=_SbsOption),
    inspect.Parameter("api_key_file", _KEYWORD, default=None, annotation=_KeyOption),
    inspect.Parameter("ca_file", _KEYWORD, default=None, annotation=_CaOption),
    inspect.Parameter("as_json", _KEYWORD, default=False, annotation=JsonOption),
)


@contextmanager
def explained(kind: type[CafeError], hint: str) -> Iterator[None]:
    """Add a hint to a refusal of this kind: the SBS gives its code and one sentence only."""
    try:
        yield
    except kind as error:
        error.hint = error.hint or hint
        raise


def connected(function: Callable[Concatenate[SbsClient, ...], Result]) -> Callable[..., None]:
    """Make a command of a function that takes a client first, then its own arguments, and gives a Result.

    The command has the function's other parameters, and --sbs, --api-key-file, --ca-file and --json.
    """
    _, *own = inspect.signature(function, eval_str=True).parameters.values()
    parameters = (*own, *_FLAGS)

    def command(**given: Any) -> None:  # noqa: ANN401 -- typer gives each what its annotation says
        flags = Flags(given.pop("sbs"), given.pop("api_key_file"), given.pop("ca_file"))
        as_json = given.pop("as_json")
        target = load_target(flags, os.environ)
        with SbsClient(target.url, target.api_key, ca_file=target.ca_file) as client:
            result = function(client, **given)
        show(result, as_json=as_json)

    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {item.name: item.annotation for item in parameters}
    return command
