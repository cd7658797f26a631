"""``cafe-agent``: enrol this host, show its TPM, measure and run the agent."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import sys
from pathlib import Path
from typing import Annotated, cast, get_args

import structlog
import typer
from pydantic import ValidationError

from cafe_lib.cli.exits import exit_code
from cafe_lib.client.host import HostCalls
from cafe_lib.errors import CafeError
from hypervisor_agent import launcher
from hypervisor_agent.enclave.backend import Backend, BackendName, choose_backend
from hypervisor_agent.enclave.gdbaddress import Gdb
from hypervisor_agent.enrolment import EnrolmentPlan, ek_digest, enrol
from hypervisor_agent.guests.server import GuestSocket
from hypervisor_agent.service import Options, serve
from hypervisor_agent.settings import Settings
from hypervisor_agent.state import StateDirectory
from hypervisor_agent.steps import standard_output
from hypervisor_agent.tpm.esapi import EsapiTpm

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The agent of a CAFE host: attests, deploys and runs secret code for the VMs of this host.",
)

_KEY_HEX = 64

Tcti = Annotated[str, typer.Option(help="how to reach the TPM [default: CAFE_AGENT_TCTI or /dev/tpmrm0]")]
State = Annotated[Path, typer.Option(help="the agent's state directory")]
Json = Annotated[bool, typer.Option("--json", help="for programs")]


@app.command()
def ek(tcti: Tcti = "", *, as_json: Json = False) -> None:
    """Print the digest of the TPM's endorsement key, for `cafe host approve`."""
    digest = ek_digest(EsapiTpm(_tcti(tcti)).endorsement_public()).hex()
    typer.echo(json.dumps({"ek": digest}) if as_json else digest)


@app.command("enrol")
def enrol_host(
    sbs: Annotated[str, typer.Option(help="address of the SBS")],
    sbs_root: Annotated[str, typer.Option(help="root key of the SBS, 64 hex digits, from its operator")],
    name: Annotated[str, typer.Option(help="name of this host")],
    state: State,
    tcti: Tcti = "",
    *,
    as_json: Json = False,
) -> None:
    """Show the SBS that this host's TPM is the approved one, and keep the keys that come of it."""
    plan = EnrolmentPlan(sbs, _key(sbs_root), name, _tcti(tcti))
    with HostCalls(sbs, ca_file=_settings().ca_file) as calls:
        enrolment = enrol(plan, EsapiTpm(plan.tcti), calls, StateDirectory(state))
    host_id = enrolment.host_id.hex()
    typer.echo(json.dumps({"host": host_id}) if as_json else f"enrolled as {host_id}")


@app.command("run")
def run_agent(
    state: State,
    vm: Annotated[list[str], typer.Option(help="VM_ID or VM_ID=SOCKET; may be repeated")],
    backend: Annotated[str, typer.Option(help="auto, kvm or emulator")] = "auto",
    *,
    events: Annotated[bool, typer.Option("--events", help="JSON lines on standard output")] = False,
    allow_debug: Annotated[bool, typer.Option("--allow-debug", help="run debug builds, too")] = False,
    gdb: Annotated[
        str, typer.Option(help="serve gdb for debug builds: 127.0.0.1:PORT or unix:PATH; ,wait waits for it")
    ] = "",
) -> None:
    """Serve the VMs of this host until SIGTERM."""
    settings = _settings()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold chunk keys
    _log_to_stderr(settings.log_level)
    sockets = [GuestSocket.parse(text, state / "vms") for text in vm]
    chosen = choose_backend(_backend(backend))
    if chosen.name != backend and chosen.name == "emulator":
        structlog.get_logger().warning(
            "no usable /dev/kvm: enclaves run in the emulator, slower and less well confined",
            hint="on a host that others trust, start with --backend kvm",
        )
    stub = _gdb(chosen, gdb, allow=allow_debug)
    options = Options(state, sockets, chosen, allow_debug, stub)
    asyncio.run(serve(options, settings, standard_output(enabled=events)))
    sys.stdout.flush()
    os._exit(0)  # every enclave has ended; a thread that waits for the SBS must not hold up the rest


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def measure(
    context: typer.Context,
    tcti: Tcti = "",
    pcr: Annotated[int, typer.Option(help="the PCR to extend")] = launcher.MEASURED_PCR,
    *,
    as_json: Json = False,
) -> None:
    """Measure the agent's files into a PCR; then, if a command follows `--`, become the agent and run it."""
    digest = launcher.measure_files(launcher.measured_files())
    value = launcher.extend_once(EsapiTpm(_tcti(tcti)), pcr, digest)
    if context.args:
        launcher.become_agent(context.args)
    line = {"pcr": pcr, "measurement": digest.hex(), "value": value.hex()}
    typer.echo(json.dumps(line) if as_json else f"PCR {pcr} is {value.hex()}")


@app.command()
def pcrs(
    tcti: Tcti = "",
    pcr: Annotated[list[int] | None, typer.Option(help="a PCR; may be repeated [default: 0-7, 14]")] = None,
) -> None:
    """Print the present PCR values as a policy, for `cafe policy set`; PCRs never extended are left out."""
    indices = tuple(sorted(set(pcr or (*range(8), launcher.MEASURED_PCR))))
    values = EsapiTpm(_tcti(tcti)).read_pcrs(((launcher.SHA256_BANK, indices),))
    named = {
        f"pcr{index}": {"alg": "sha256", "index": index, "values": [digest.hex()]}
        for _, index, digest in values
        if any(digest) or pcr
    }
    typer.echo(json.dumps({"version": 1, "pcrs": named}, indent=1))


def run() -> None:
    """Run the command line; errors become one line and an exit code."""
    try:
        app()
    except CafeError as error:
        hint = f"\n  {error.hint}" if error.hint else ""
        print(f"cafe-agent: {error.detail}{hint}", file=sys.stderr)  # noqa: T201 - a command line talks
        raise SystemExit(exit_code(error)) from None


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        names = ", ".join("CAFE_AGENT_" + str(item["loc"][0]).upper() for item in error.errors())
        raise typer.BadParameter(f"wrong value in the environment: {names}") from error


def _tcti(given: str) -> str:
    return given or _settings().tcti


def _key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(text) != _KEY_HEX or len(key) * 2 != _KEY_HEX:
        raise typer.BadParameter("the root key has 64 hex digits")
    return key


def _backend(text: str) -> BackendName:
    if text not in get_args(BackendName):
        raise typer.BadParameter("the backend is auto, kvm or emulator")
    return cast(BackendName, text)


def _gdb(backend: Backend, address: str, *, allow: bool) -> Gdb | None:
    """Refuse early what cannot work: no debug builds, KVM, an address that others can reach."""
    if not address:
        return None
    if not allow:
        raise typer.BadParameter("gdb is for debug builds: --allow-debug")
    gdb = Gdb.parse(address)
    backend.with_gdb(gdb)
    return gdb


def _log_to_stderr(level: str) -> None:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


if __name__ == "__main__":
    run()
