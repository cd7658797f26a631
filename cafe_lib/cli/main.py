"""The `cafe` command."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from cafe_lib.cli import (
    audit,
    build,
    doctor,
    fuzz,
    host,
    identity,
    inspect,
    licence,
    policy,
    publisher,
    push,
    release,
    symbolize,
    vm,
)
from cafe_lib.cli.console import print_error
from cafe_lib.cli.exits import HOST, REFUSED, exit_code
from cafe_lib.errors import CafeError, HostError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Protect functions of a program: build, publish, license, deploy.",
)
app.command()(build.build)
app.command()(inspect.inspect)
app.command()(fuzz.fuzz)
app.command()(push.push)
app.command()(audit.audit)
app.command()(symbolize.symbolize)
app.command()(doctor.doctor)
for noun in (publisher, release, licence, identity, vm, host, policy):
    app.add_typer(noun.app, name=noun.__name__.rpartition(".")[2])


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
