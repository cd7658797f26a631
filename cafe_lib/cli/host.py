"""`cafe host`: the hosts that may receive secret code."""

from __future__ import annotations

from typing import Annotated

import typer

from cafe_lib.cli.connected import connected, explained
from cafe_lib.cli.output import Record, Rows
from cafe_lib.client.sbs import SbsClient
from cafe_lib.errors import ConflictError

app = typer.Typer(no_args_is_help=True, help="The hosts that may receive secret code.")
_COLUMNS = ("id", "name", "state", "leases", "enrolled_at", "last_attested_at")
_APPROVALS = ("ek_digest", "name", "operator", "created_at", "host_id", "revoked_at")


@app.command()
@connected
def approve(
    client: SbsClient,
    name: Annotated[str, typer.Argument(help="The name under which the host will enrol.")],
    ek: Annotated[str, typer.Option(help="What `cafe-agent ek` prints on the host, 64 hex digits.")],
) -> Record:
    """Let the host with this TPM enrol, once."""
    with explained(ConflictError, "this TPM or this name is taken: `cafe host approvals`"):
        return Record(client.approve_host({"name": name, "ek_digest": ek}))


@app.command()
@connected
def approvals(client: SbsClient) -> Rows:
    """List the TPMs that may enrol, and the hosts they became."""
    return Rows(_APPROVALS, client.approvals())


@app.command("list")
@connected
def list_hosts(client: SbsClient) -> Rows:
    """List the enrolled hosts."""
    return Rows(_COLUMNS, client.hosts())


@app.command()
@connected
def revoke(
    client: SbsClient,
    host: Annotated[str, typer.Argument(help="The host's id, 32 hex digits.", metavar="ID")],
) -> Record:
    """End a host's enrolment: what runs there is stopped, and it receives nothing again."""
    return Record(client.revoke_host(host))
