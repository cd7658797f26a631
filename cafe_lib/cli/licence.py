"""`cafe licence`: who may run an app, on how many seats, until when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from cafe_lib.cli.connected import connected
from cafe_lib.cli.output import Record, Rows
from cafe_lib.client.sbs import SbsClient

app = typer.Typer(no_args_is_help=True, help="Who may run an app, on how many seats, until when.")
LicenceId = Annotated[str, typer.Argument(help="The licence's id.", metavar="ID")]
_COLUMNS = ("id", "app", "tenant", "vm_id", "seats_used", "seats", "expires_at", "revoked_at")


@app.command()
@connected
def issue(
    client: SbsClient,
    app_name: Annotated[
        str, typer.Option("--app", help="The app and all its versions.", metavar="PUBLISHER/NAME")
    ],
    tenant: Annotated[str | None, typer.Option(help="The tenant whose VMs may run it.")] = None,
    vm: Annotated[str | None, typer.Option(help="The only VM that may run it.")] = None,
    seats: Annotated[int, typer.Option(help="How many enclaves at once.", min=1)] = 1,
    days: Annotated[int, typer.Option(help="Days until it expires.", min=1, max=36500)] = 365,
) -> Record:
    """Issue a licence for a tenant or for one VM."""
    if (tenant is None) == (vm is None):
        raise typer.BadParameter("give either --tenant or --vm")
    expires = datetime.now(UTC) + timedelta(days=days)
    holder = {"tenant": tenant, "vm_id": vm}
    terms = {"seats": seats, "expires_at": expires.isoformat(timespec="seconds")}
    return Record(client.issue_licence({"app": app_name, **holder, **terms}))


@app.command("list")
@connected
def list_licences(client: SbsClient) -> Rows:
    """List the licences you may see."""
    return Rows(_COLUMNS, client.licences())


@app.command()
@connected
def show(client: SbsClient, licence: LicenceId) -> Record:
    """Show one licence."""
    return Record(client.licence(licence))


@app.command()
@connected
def revoke(client: SbsClient, licence: LicenceId) -> Record:
    """End a licence: what runs under it is stopped."""
    return Record(client.revoke_licence(licence))
