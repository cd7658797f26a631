"""The `cafe` command. Exit codes: 0 done, 1 refused, 2 unusable input, 3 network or peer, 4 this machine."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from cafe_lib.cli import audit, build, host, identity, inspect, licence, policy, publisher, push, release, vm
from cafe_lib.cli.console import print_error
from cafe_lib.errors import (
    BuildError,
    CafeError,
    EnclaveError,
    HostError,
    ImageError,
    InterfaceError,
    LeakError,
    ProtocolError,
    TransportError,
)

REFUSED, UNUSABLE, TRANSPORT, HOST = 1, 2, 3, 4
_EXIT_CODES: tuple[tuple[type[CafeError], int], ...] = (
    (LeakError, REFUSED),
    (BuildError, UNUSABLE),
    (ProtocolError, UNUSABLE),
    (ImageError, UNUSABLE),
    (InterfaceError, UNUSABLE),
    (TransportError, TRANSPORT),
    (HostError, HOST),
    (EnclaveError, HOST),
    (CafeError, REFUSED),
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Protect functions of a program: build, publish, license, deploy.",
)
app.command()(build.build)
app.command()(inspect.inspect)
app.command()(push.push)
app.command()(audit.audit)
for noun in (publisher, release, licence, identity, vm, host, policy):
    app.add_typer(noun.app, name=noun.__name__.rpartition(".")[2])


def exit_code(error: CafeError) -> int:
    """Return what a shell learns of an error."""
    return next(code for kind, code in _EXIT_CODES if isinstance(error, kind))


def run() -> NoReturn:
    """Run the command line and exit."""
    try:
        app()
        sys.exit(0)
    except CafeError as error:
        print_error(error, as_json="--json" in sys.argv)
        sys.exit(exit_code(error))
    except BrokenPipeError:
        sys.exit(REFUSED)
    except OSError as error:
        print_error(HostError(f"{error.filename or ''}: {error.strerror}"), as_json="--json" in sys.argv)
        sys.exit(HOST)
