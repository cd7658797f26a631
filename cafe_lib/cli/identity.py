"""`cafe identity`: who may use an SBS, and as what."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from cafe_lib.cli.connected import connected
from cafe_lib.cli.output import Record, Rows
from cafe_lib.client.sbs import SbsClient

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
        typer.Option(help="For a publisher: the key that `cafe publisher show` prints.", metavar="HEX"),
    ] = None,
) -> Record:
    """Create an identity; prints its API key, which is never shown again."""
    if (public_key is None) == (role is Role.PUBLISHER):
        raise typer.BadParameter("a publisher needs --public-key, and only a publisher has one")
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
