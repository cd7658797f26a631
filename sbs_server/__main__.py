"""The `cafe-sbs` command; exit codes as in `cafe_lib.cli.exits`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Final, NoReturn

import structlog
import typer
import uvicorn
from pydantic import ValidationError

from cafe_lib.cli.exits import HOST, exit_code
from cafe_lib.client.connection import is_loopback
from cafe_lib.errors import CafeError, ConflictError, HostError
from cafe_lib.wire.keys import release_key_id
from sbs_server.adapters.keyfiles import create_keys, load_keys
from sbs_server.adapters.system import SystemClock
from sbs_server.app import Running, running
from sbs_server.domain.values import ADMIN
from sbs_server.events import StepEvents
from sbs_server.services.identities import NewIdentity
from sbs_server.settings import Settings

_FIRST_ADMIN: Final = "admin"
_ENDING_SECONDS: Final = 3
_MAX_CONNECTIONS: Final = 2000

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The Secret Binary Server. Settings come from CAFE_SBS_* in the environment.",
)
_Dir = Annotated[Path | None, typer.Option("--dir", help="The state directory; or CAFE_SBS_DIR.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]


@app.command()
def init(directory: _Dir = None, *, as_json: _Json = False) -> None:
    """Make keys and database, and print the first administrator's key, once."""
    settings = _settings(directory)
    _print(asyncio.run(_init(settings)), as_json=as_json)


@app.command()
def keys(directory: _Dir = None, *, as_json: _Json = False) -> None:
    """Print the public keys that hosts and publishers pin."""
    _print(_public_keys(_settings(directory)), as_json=as_json)


@app.command()
def serve(
    directory: _Dir = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8443,
    tls: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Certificate chain and private key (PEM).", metavar="CERTIFICATE KEY"),
    ] = None,
    *,
    behind_proxy: Annotated[
        bool, typer.Option(help="Serve plain HTTP beyond loopback: a proxy in front does TLS.")
    ] = False,
    events: Annotated[bool, typer.Option(help="Print each step as a line of JSON.")] = False,
) -> None:
    """Serve until SIGTERM or SIGINT."""
    if tls is None and not behind_proxy and not is_loopback(host):
        raise typer.BadParameter("beyond loopback give --tls, or --behind-proxy")
    certificate, key = tls or (None, None)
    config = {
        "host": host,
        "port": port,
        "ssl_certfile": certificate,
        "ssl_keyfile": key,
        "proxy_headers": behind_proxy,
    }
    asyncio.run(_serve(_settings(directory), StepEvents(sys.stdout if events else None), config))


def run() -> NoReturn:
    """Run the command line and exit."""
    os.umask(0o077)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        app()
    except CafeError as error:
        hint = f" ({error.hint})" if error.hint else ""
        typer.echo(f"cafe-sbs: {error.detail}{hint}", err=True)
        sys.exit(exit_code(error))
    except OSError as error:
        typer.echo(f"cafe-sbs: {error.filename or ''}: {error.strerror}", err=True)
        sys.exit(HOST)
    sys.exit(0)


def _settings(directory: Path | None) -> Settings:
    try:
        settings = Settings()
    except ValidationError as error:
        names = ", ".join(f"CAFE_SBS_{'_'.join(map(str, item['loc'])).upper()}" for item in error.errors())
        raise HostError(f"a setting is not usable: {names}") from error
    return settings if directory is None else settings.model_copy(update={"dir": directory})


def _public_keys(settings: Settings) -> dict[str, str]:
    found = load_keys(settings.keys(), SystemClock().now())
    release_key = found.release_key.public
    return {"sbs_root": found.root_public.hex(), "release_key_id": release_key_id(release_key).hex()}


async def _init(settings: Settings) -> dict[str, str]:
    """Do what is still missing: an interrupted run can be repeated until it has printed the key."""
    settings.dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not settings.keys().exists():
        create_keys(settings.keys(), SystemClock().now())
    async with running(settings, StepEvents()) as site:
        async with site.services.store.read() as tx:
            if await tx.identities.count(role=ADMIN):
                raise ConflictError(f"{settings.dir} has an administrator already")
        made = await site.services.identities.create("init", NewIdentity(_FIRST_ADMIN, ADMIN))
    return {"admin_key": made.api_key, **_public_keys(settings)}


class _Server(uvicorn.Server):
    """Ends the event streams as soon as it is told to end: they would hold it up."""

    def __init__(self, config: uvicorn.Config, site: Running, steps: StepEvents) -> None:
        super().__init__(config)
        self._site = site
        self._steps = steps

    async def startup(self, *arguments: object, **named: object) -> None:
        """Say when it listens."""
        await super().startup(*arguments, **named)  # type: ignore[arg-type]  # handed on as they came
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            self._steps.event("ready", port=port)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End in order on a signal; uvicorn would raise it again, and the database would not be closed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end."""
        self._site.bell.close()
        super().handle_exit(sig, frame)


async def _serve(settings: Settings, steps: StepEvents, config: dict[str, object]) -> None:
    logging.basicConfig(level=logging.WARNING)
    async with running(settings, steps) as site:
        server = _Server(
            uvicorn.Config(
                site.app,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_ENDING_SECONDS,
                limit_concurrency=_MAX_CONNECTIONS,
                lifespan="off",
                **config,  # type: ignore[arg-type]  # each is what its name says
            ),
            site,
            steps,
        )
        await server.serve()
        if not server.started:
            raise HostError("cannot listen on that address")


def _print(values: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(values))
        return
    for name, value in values.items():
        typer.echo(f"{name}: {value}")


if __name__ == "__main__":
    run()
