"""`cafe push`: seal a package to an SBS and upload it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from cafe_lib.cli.connected import connected, explained
from cafe_lib.cli.output import Record
from cafe_lib.cli.pins import fetch_release_key
from cafe_lib.cli.publisher import PublisherOption
from cafe_lib.client.sbs import SbsClient
from cafe_lib.errors import ConflictError, NotFoundError
from cafe_lib.image.manifest import verify_manifest
from cafe_lib.image.package import open_package, reseal
from cafe_lib.toolchain.keys import load_publisher
from cafe_lib.wire.limits import CHUNK_BYTES


@connected
def push(
    client: SbsClient,
    package: Annotated[Path, typer.Argument(help="The package that `cafe build` made, NAME.cafe.")],
    publisher: PublisherOption,
    release_key: Annotated[
        str | None,
        typer.Option(
            help="The SBS's release key or its id, in hex, from its operator; by default the key seen first.",
            metavar="HEX",
        ),
    ] = None,
) -> Record:
    """Seal a package to the SBS's release key and upload it."""
    identity = load_publisher(publisher)
    try:
        built = open_package(package)
    except OSError as error:
        raise NotFoundError(f"{package}: {error.strerror}") from error
    verify_manifest(built.cose, identity.public_key)
    key = fetch_release_key(client, publisher, release_key)
    with tempfile.TemporaryDirectory(prefix="cafe-push-") as directory:
        sealed = Path(directory) / "sealed.cafe"
        reseal(built, identity.secret, key, sealed)
        taken = explained(ConflictError, "it is there, or was revoked: raise `version` and build again")
        with taken, _pieces(sealed) as pieces:
            return Record(client.push_release(pieces, sealed.stat().st_size))


@contextmanager
def _pieces(path: Path) -> Iterator[Iterator[bytes]]:
    """Give a file in pieces, with a progress bar where stderr is a terminal."""
    console = Console(stderr=True)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with path.open("rb") as file, Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("push", total=path.stat().st_size)

        def read() -> Iterator[bytes]:
            while piece := file.read(CHUNK_BYTES):
                yield piece
                bar.advance(task, len(piece))

        yield read()
