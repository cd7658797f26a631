"""`cafe identity`: who may use an SBS, and as what."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TextIO

import typer

from cafe_lib.cli.connected import connected, explained
from cafe_lib.cli.output import Record, Rows
from cafe_lib.client.sbs import SbsClient
from cafe_lib.errors import ConflictError, HostError
from cafe_lib.toolchain.keys import load_publisher

app = typer.Typer(no_args_is_help=True, help="Who may use the SBS, and as what.")
_COLUMNS = ("id", "name", "role", "publisher_id", "created_at", "revoked_at")


class Role(StrEnum):
    """What an identity may do; the names of the SBS."""

    ADMIN = "admin"
    PUBLISHER = "publisher"
    MARKETPLACE = "marketplace"
    OPERATOR = "operator"


@app.command()
@connected
def create(
    client: SbsClient,
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits, - and _.")],
    role: Annotated[Role, typer.Option(help="What it may do.")],
    public_key: Annotated[
        str | None,
        typer.Option(help="A publisher's key, as `cafe publisher show` prints it.", metavar="HEX"),
    ] = None,
    publisher: Annotated[
        Path | None, typer.Option(help="Or the directory of the publisher's identity, to read it from.")
    ] = None,
    save_key: Annotated[
        Path | None,
        typer.Option(help="Write the API key to this new file (0600), do not print it.", metavar="FILE"),
    ] = None,
) -> Record:
    """Create an identity, and show its API key, this once."""
    given = (public_key is not None) + (publisher is not None)
    if given != (role is Role.PUBLISHER):
        raise typer.BadParameter("a publisher needs --public-key or --publisher, and nobody else has them")
    if publisher is not None:
        public_key = load_publisher(publisher).public_key.hex()
    body = {"name": name, "role": role.value, "public_key": public_key}
    with explained(ConflictError, "this name or public key was used before: `cafe identity list`"):
        if save_key is None:
            return Record(client.create_identity(body))
        with _new_private_file(save_key) as file:
            made = client.create_identity(body)
            file.write(f"{made.pop('api_key', '')}\n")
        return Record({**made, "api_key_file": str(save_key)})


@contextmanager
def _new_private_file(path: Path) -> Iterator[TextIO]:
    """Open a new file for its owner only; nothing of it stays if what follows fails."""
    try:
        file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w")
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error
    try:
        with file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@app.command("list")
@connected
def list_identities(client: SbsClient) -> Rows:
    """List every identity."""
    return Rows(_COLUMNS, client.identities())


@app.command()
@connected
def delete(
    client: SbsClient,
    identity: Annotated[str, typer.Argument(help="The identity's id.", metavar="ID")],
) -> Record:
    """End an identity: its API key stops working at once."""
    client.delete_identity(identity)
    return Record({"id": identity, "state": "deleted"})
