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
    actor: Annotated[str | None, typer.Option(help="Only what this identity asked.")] = None,
    action: Annotated[str | None, typer.Option(help="Only decisions of this kind: licence.issue...")] = None,
) -> Rows:
    """Show what the SBS decided, oldest first."""
    asked = {"after": after, "actor": actor, "action": action}
    return Rows(_COLUMNS, client.audit({name: value for name, value in asked.items() if value is not None}))
