"""`cafe identity`: who may use an SBS, and as what."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cafe_lib.cli.connected import connected
from cafe_lib.cli.output import Record, Rows
from cafe_lib.client.sbs import SbsClient
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
) -> Record:
    """Create an identity; prints its API key, which is never shown again."""
    given = (public_key is not None) + (publisher is not None)
    if given != (role is Role.PUBLISHER):
        raise typer.BadParameter("a publisher needs --public-key or --publisher, and nobody else has them")
    if publisher is not None:
        public_key = load_publisher(publisher).public_key.hex()
    return Record(client.create_identity({"name": name, "role": role.value, "public_key": public_key}))


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
