"""`cafe policy`: what a host must show in its TPM's quote."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cafe_lib.cli.connected import connected, explained
from cafe_lib.cli.output import Record
from cafe_lib.client.sbs import SbsClient
from cafe_lib.errors import ConflictError, LimitError, NotFoundError
from cafe_lib.evidence.policy import parse_policy
from cafe_lib.wire.limits import MAX_POLICY_BYTES

app = typer.Typer(no_args_is_help=True, help="What a host must show in its TPM's quote.")


@app.command()
@connected
def show(client: SbsClient) -> Record:
    """Show the policy in force."""
    return Record(client.policy())


@app.command("set")
@connected
def set_policy(
    client: SbsClient,
    file: Annotated[Path, typer.Argument(help="A policy in JSON, as `cafe-agent pcrs` prints; - for stdin.")],
) -> Record:
    """Put a policy in force; hosts that do not meet it get nothing from then on."""
    document = _read(file)
    parse_policy(document)
    with explained(ConflictError, "raise `version` above that of the policy in force: `cafe policy show`"):
        return Record(client.set_policy(document))


def _read(file: Path) -> bytes:
    try:
        with sys.stdin.buffer if str(file) == "-" else file.open("rb") as source:
            document = source.read(MAX_POLICY_BYTES + 1)
    except OSError as error:
        raise NotFoundError(f"{file}: {error.strerror}") from error
    if len(document) > MAX_POLICY_BYTES:
        raise LimitError(f"{file} is longer than {MAX_POLICY_BYTES} bytes")
    return document
