"""`cafe publisher`: the identity that signs packages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cafe_lib.cli.console import JsonOption, print_result
from cafe_lib.toolchain.keys import PublisherIdentity, create_publisher, load_publisher

DEFAULT_DIRECTORY = Path("~/.config/cafe/publisher")
PublisherOption = Annotated[
    Path,
    typer.Option(
        "--publisher",
        envvar="CAFE_PUBLISHER",
        help="Directory of the publisher's identity.",
        default_factory=DEFAULT_DIRECTORY.expanduser,
        show_default=str(DEFAULT_DIRECTORY),
    ),
]
_Directory = Annotated[
    Path,
    typer.Option(
        "--dir",
        envvar="CAFE_PUBLISHER",
        help="Directory of the publisher's identity.",
        default_factory=DEFAULT_DIRECTORY.expanduser,
        show_default=str(DEFAULT_DIRECTORY),
    ),
]

app = typer.Typer(no_args_is_help=True, help="The identity that signs packages.")


@app.command()
def init(directory: _Directory, *, as_json: JsonOption = False) -> None:
    """Make a signing key and a publisher's secret, readable by you only."""
    print_result(_describe(create_publisher(directory), directory), as_json=as_json)


@app.command()
def show(directory: _Directory, *, as_json: JsonOption = False) -> None:
    """Show the public key that others know this publisher by."""
    print_result(_describe(load_publisher(directory), directory), as_json=as_json)


def _describe(identity: PublisherIdentity, directory: Path) -> dict[str, object]:
    return {
        "publisher": identity.id.hex(),
        "public_key": identity.public_key.hex(),
        "directory": str(directory),
    }
