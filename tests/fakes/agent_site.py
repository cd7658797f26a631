"""One small site of real processes: SBS, agent, guests, and a recording proxy between agent and SBS."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cafe_lib.client.sbs import SbsClient
from cafe_lib.errors import CafeError
from cafe_lib.image.package import open_package, reseal
from cafe_lib.toolchain.keys import PublisherIdentity
from hypervisor_agent.enrolment import ek_digest
from hypervisor_agent.launcher import MEASURED_PCR, extend_once, measure_files, measured_files
from hypervisor_agent.tpm.esapi import EsapiTpm

BIN = Path(sys.executable).parent
VM, OTHER_VM, TENANT = "web-1", "web-2", "globex"


def end(process: subprocess.Popen[Any], seconds: float = 10) -> None:
    """Ask it to end, then insist."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(seconds)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()


def expect_soon(condition: Callable[[], bool], what: str, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(address: str | tuple[str, int]) -> bool:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as probe:
        probe.settimeout(1)
        return probe.connect_ex(address) == 0


class Recorder:
    """A TCP proxy that keeps every byte of both directions."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.sent, self.received = bytearray(), bytearray()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            for end_point in (client, server):
                end_point.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open += [client, server]
            for source, target, record in ((client, server, self.sent), (server, client, self.received)):
                threading.Thread(target=self._pump, args=(source, target, record), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, record: bytearray) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                record += data
                target.sendall(data)
        for end_point in (source, target):
            with suppress(OSError):
                end_point.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        for end_point in self._open:
            end_point.close()


@dataclass
class Lines:
    """The lines a process prints, read by a thread."""

    process: subprocess.Popen[str]
    _lines: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self._lines.put(line.rstrip("\n"))

    def next(self, seconds: float = 20) -> str:
        return self._lines.get(timeout=seconds)


class Guest:
    """The public program of the probe: one call per line."""

    def __init__(self, program: Path, address: Path, *arguments: str) -> None:
        environment = {**os.environ, "CAFE_SOCKET": str(address)}
        self.process = subprocess.Popen(
            [str(program), *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._lines = Lines(self.process)

    def begin(self, call: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(call + "\n")

    def result(self, seconds: float = 20) -> tuple[int, int]:
        """Value and cafe_last_error() of the call that was begun."""
        value, status, *_ = self._lines.next(seconds).split()
        return int(value), int(status)

    def line(self, call: str, seconds: float = 20) -> str:
        self.begin(call)
        return self._lines.next(seconds)

    def end(self) -> None:
        end(self.process)

    def call(self, call: str, seconds: float = 20) -> tuple[int, int]:
        self.begin(call)
        return self.result(seconds)


class Agent:
    """A running `cafe-agent run`."""

    def __init__(self, state: Path, sockets: dict[str, Path], backend: str, log: Path) -> None:
        self.sockets, self.log, self.events = sockets, log, []
        command = [str(BIN / "cafe-agent"), "run", "--state", str(state), "--backend", backend, "--events"]
        for vm, path in sockets.items():
            command += ["--vm", f"{vm}={path}"]
        with log.open("ab") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        expect_soon(lambda: self.seen("ready"), "the agent is ready")

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.events.append(json.loads(line))

    def seen(self, kind: str, **fields: object) -> bool:
        assert self.process.poll() is None or kind != "ready", self.log.read_text()[-2000:]
        return self.count(kind, **fields) > 0

    def count(self, kind: str, **fields: object) -> int:
        return sum(event["event"] == kind and fields.items() <= event.items() for event in tuple(self.events))

    def children(self) -> list[int]:
        """Return the agent's processes: spare and running VMMs or emulators."""
        with suppress(FileNotFoundError):
            tasks = list(Path(f"/proc/{self.process.pid}/task").iterdir())
            return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
        return []

    def descriptors(self) -> list[str]:
        found = []
        for entry in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found.append(str(entry.readlink()).split(":[")[0])
        return sorted(found)

    def end(self) -> None:
        end(self.process)
        self._thread.join(5)


@dataclass(frozen=True)
class Built:
    """A project that was built: its package and its public program."""

    package: Path
    program: Path
    name: str

    @property
    def release_id(self) -> str:
        return open_package(self.package).secret_binary_id.hex()


class Site:
    """Everything but guests; `close` ends what was started."""

    def __init__(
        self, folder: Path, tcti: str, publisher: PublisherIdentity, environment: dict[str, str]
    ) -> None:
        self.folder, self.tcti, self._publisher = folder, tcti, publisher
        self._environment = {**os.environ, **environment}
        self.port = free_port()
        self.made = self._json("cafe-sbs", "init", "--dir", str(folder / "sbs"), "--json")
        self.start_sbs()
        self.recorder = Recorder(("127.0.0.1", self.port))
        self.admin = SbsClient(f"http://127.0.0.1:{self.port}", self.made["admin_key"])
        self._clients: dict[str, SbsClient] = {}
        self.agent: Agent | None = None

    def start_sbs(self) -> None:
        command = [str(BIN / "cafe-sbs"), "serve", "--dir", str(self.folder / "sbs"), "--host", "127.0.0.1"]
        with (self.folder / "sbs.log").open("ab") as log:
            self.sbs = subprocess.Popen(
                [*command, "--port", str(self.port), "--events"],
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        expect_soon(lambda: answers(("127.0.0.1", self.port)), "the SBS answers", 30)

    def stop_sbs(self) -> None:
        end(self.sbs)

    def _json(self, program: str, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [str(BIN / program), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=self._environment,
        )
        assert done.returncode == 0, f"{program} {arguments[0]}: {done.stderr}"
        made: dict[str, Any] = json.loads(done.stdout)
        return made

    def client(self, role: str) -> SbsClient:
        if role not in self._clients:
            key = self._publisher.public_key.hex() if role == "publisher" else None
            body = {"name": "acme" if key else role, "role": role, "public_key": key}
            made = self.admin.create_identity(body)
            self._clients[role] = SbsClient(f"http://127.0.0.1:{self.port}", str(made["api_key"]))
        return self._clients[role]

    # ------------------------------------------------------------------ the host

    def enrol(self) -> None:
        """Measure the agent, have its TPM approved, enrol it, and make the present PCRs the policy."""
        tpm = EsapiTpm(self.tcti)
        extend_once(tpm, MEASURED_PCR, measure_files(measured_files()))
        ek = ek_digest(tpm.endorsement_public()).hex()
        self.client("operator").approve_host({"name": "host-1", "ek_digest": ek})
        self.enrol_again()
        self.allow_present_pcrs()
        self.register_vm(VM)
        self.register_vm(OTHER_VM, "nobody")

    def enrol_again(self) -> None:
        enrolled = self._json(
            "cafe-agent", "enrol", "--sbs", f"http://127.0.0.1:{self.recorder.port}",
            "--sbs-root", self.made["sbs_root"], "--name", "host-1",
            "--state", str(self.folder / "agent"), "--tcti", self.tcti, "--json",
        )  # fmt: skip
        self.host_id = str(enrolled["host"])

    def register_vm(self, vm: str, tenant: str = TENANT) -> None:
        self.client("operator").register_vm({"vm_id": vm, "host_id": self.host_id, "tenant": tenant})

    def allow_present_pcrs(self) -> None:
        ((_, _, value),) = EsapiTpm(self.tcti).read_pcrs(((0x0B, (14,)),))
        self._policy_version = getattr(self, "_policy_version", 0) + 1
        pcrs = {"agent": {"alg": "sha256", "index": 14, "values": [value.hex()]}}
        policy = {"version": self._policy_version, "pcrs": pcrs}
        self.client("operator").set_policy(json.dumps(policy).encode())

    def extend_pcr(self) -> None:
        EsapiTpm(self.tcti).extend_pcr(14, b"other software".ljust(32))

    @contextmanager
    def running_agent(self, backend: str) -> Iterator[Agent]:
        sockets = {vm: self.folder / f"{vm}.sock" for vm in (VM, OTHER_VM)}
        agent = self.agent = Agent(self.folder / "agent", sockets, backend, self.folder / "agent.log")
        try:
            yield agent
        finally:
            agent.end()
            print(agent.log.read_text()[-4000:], (self.folder / "sbs.log").read_text()[-4000:])  # noqa: T201 - shown when a test fails

    # ------------------------------------------------------------------ releases and licences

    def publish(self, built: Built) -> None:
        sealed = self.folder / "sealed.cafe"
        release_key = bytes.fromhex(str(self.admin.keys()["release_key"]))
        reseal(open_package(built.package), self._publisher.secret, release_key, sealed)
        with sealed.open("rb") as file:
            self.client("publisher").push_release(iter(lambda: file.read(65536), b""), sealed.stat().st_size)

    def license(self, built: Built, seats: int = 8) -> str:
        expires = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        body = {"app": f"acme/{built.name}", "tenant": TENANT, "seats": seats, "expires_at": expires}
        return str(self.client("marketplace").issue_licence(body)["id"])

    def revoke(self, licence: str) -> None:
        self.client("marketplace").revoke_licence(licence)

    def seats_used(self, licence: str) -> int:
        return int(str(self.client("marketplace").licence(licence)["seats_used"]))

    def stored_chunks(self) -> list[Path]:
        files = [path for path in (self.folder / "sbs").rglob("*") if path.is_file()]
        return [path for path in files if len(path.name) == 64 and set(path.name) <= set("0123456789abcdef")]

    def close(self) -> None:
        for client in (self.admin, *self._clients.values()):
            with suppress(CafeError):
                client.close()
        self.recorder.close()
        self.stop_sbs()


def stop_hard(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    """Whether the process still does anything; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def cpu_ticks(pid: int) -> int:
    """Clock ticks of CPU time that the process has used in user mode; its guest's are among them."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def memory_of(pid: int, name: str = "") -> Iterator[bytes]:
    """Every readable mapping of a process, or those of this name."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, permissions, *_ = line.split()
            if permissions[0] != "r" or "[v" in line or name not in line:
                continue
            start, stop = (int(part, 16) for part in span.split("-"))
            with suppress(OSError):
                memory.seek(start)
                yield memory.read(stop - start)
