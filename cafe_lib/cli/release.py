"""`cafe release`: the secret binaries an SBS holds."""

from __future__ import annotations

from typing import Annotated

import typer

from cafe_lib.cli.connected import connected
from cafe_lib.cli.output import Record, Rows
from cafe_lib.client.sbs import SbsClient

app = typer.Typer(no_args_is_help=True, help="The secret binaries that were pushed.")
ReleaseId = Annotated[str, typer.Argument(help="Its SecretBinaryID, 64 hex digits.", metavar="ID")]
_COLUMNS = ("id", "release", "build_mode", "image_bytes", "created_at", "revoked_at")


@app.command("list")
@connected
def list_releases(client: SbsClient) -> Rows:
    """List the releases you may see."""
    return Rows(_COLUMNS, client.releases())


@app.command()
@connected
def show(client: SbsClient, release: ReleaseId) -> Record:
    """Show one release."""
    return Record(client.release(release))


@app.command()
@connected
def revoke(client: SbsClient, release: ReleaseId) -> Record:
    """End a release: what runs of it is stopped, and it is never released again."""
    return Record(client.revoke_release(release))
