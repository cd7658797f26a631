"""`cafe audit`: what the SBS decided, when, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from cafe_lib.cli.connected import connected
from cafe_lib.cli.output import Rows
from cafe_lib.client.sbs import SbsClient

_COLUMNS = ("number", "at", "actor", "action", "outcome", "code", "subject", "host_id", "vm_id")


@connected
def audit(
    client: SbsClient,
    after: Annotated[int, typer.Option(help="Only records with a higher number.", min=0)] = 0,
) -> Rows:
    """Show what the SBS decided, oldest first."""
    return Rows(_COLUMNS, client.audit({"after": after}))
