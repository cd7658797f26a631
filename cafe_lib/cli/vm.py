"""`cafe vm`: which VM runs on which host, and whose it is."""

from __future__ import annotations

from typing import Annotated

import typer

from cafe_lib.cli.connected import connected, explained
from cafe_lib.cli.output import Record, Rows
from cafe_lib.client.sbs import SbsClient
from cafe_lib.errors import ConflictError

app = typer.Typer(no_args_is_help=True, help="Which VM runs on which host, and whose it is.")
VmId = Annotated[str, typer.Argument(help="The VM's id, as the agent on its host names it.", metavar="VM")]
_COLUMNS = ("vm_id", "host_id", "tenant", "operator", "created_at")


@app.command()
@connected
def register(
    client: SbsClient,
    vm: VmId,
    host: Annotated[str, typer.Option(help="The id of its host, 32 hex digits.", metavar="ID")],
    tenant: Annotated[str, typer.Option(help="The tenant it belongs to.")],
) -> Record:
    """Register a VM, so that licences of its tenant hold for it."""
    with explained(ConflictError, "this name is taken, or was another tenant's"):
        return Record(client.register_vm({"vm_id": vm, "host_id": host, "tenant": tenant}))


@app.command("list")
@connected
def list_vms(client: SbsClient) -> Rows:
    """List the VMs you may see."""
    return Rows(_COLUMNS, client.vms())


@app.command()
@connected
def remove(client: SbsClient, vm: VmId) -> Record:
    """Forget a VM: what runs in it is stopped."""
    client.remove_vm(vm)
    return Record({"vm_id": vm, "state": "removed"})
