"""`cafe identity`: who may use an SBS, and as what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cafe_lib.cli.connected import connected
from cafe_lib.cli.output import Record, Rows
from cafe_lib.client.sbs import SbsClient
from cafe_lib.toolchain.keys import load_publisher

app = typer.Typer(no_args_is_help=True, help="Who may use the SBS, and as what.")
_COLUMNS = ("id", "name", "role", "tenant", "created_at")


@app.command()
@connected
def create(
    client: SbsClient,
    name: Annotated[str, typer.Argument(help="A name for people.")],
    role: Annotated[str, typer.Option(help="administrator, publisher, marketplace or operator.")],
    publisher: Annotated[
        Path | None, typer.Option(help="Directory of the identity whose packages it may push.")
    ] = None,
) -> Record:
    """Create an identity; prints its API key, which is never shown again."""
    body: dict[str, object] = {"name": name, "role": role}
    if publisher is not None:
        body["public_key"] = load_publisher(publisher).public_key.hex()
    return Record(client.create_identity(body))


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
