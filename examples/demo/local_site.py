"""One small site on this machine: a software TPM, an SBS, an agent, and the people who use them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from processes import BIN, Event, Service, Services, run_json
from tpm2_pytss import ESAPI, ESYS_TR, TPM2_ALG, TPML_DIGEST_VALUES, TPMT_HA, TPMU_HA

VM_ID, TENANT = "web-1", "globex"
QUOTE_MAX_AGE_SECONDS = 1


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Site:
    """Starts the parts in order; ``folder`` holds all their state. Programs end with ``services``."""

    def __init__(
        self, folder: Path, services: Services, listener: Callable[[Event], None], backend: str = "auto"
    ) -> None:
        self.backend = backend
        self.folder, self.services, self.listener = folder, services, listener
        self.keys: dict[str, str] = {}
        self.url = f"http://127.0.0.1:{free_port()}"
        self.tcti = f"swtpm:path={folder}/tpm.sock"
        self.guest_socket = folder / "guest.sock"
        self.publisher = folder / "publisher"
        self.sbs_root = self.host_id = ""
        self.agent: Service | None = None

    def start_tpm(self) -> None:
        """Start swtpm with an empty state: a machine that has just been switched on."""
        state = self.folder / "tpm"
        state.mkdir()
        server, control = self.folder / "tpm.sock", self.folder / "tpm.sock.ctrl"
        command = [
            shutil.which("swtpm") or "swtpm",
            *("socket", "--tpm2", "--tpmstate", f"dir={state}", "--flags", "not-need-init,startup-clear"),
            *("--server", f"type=unixio,path={server}", "--ctrl", f"type=unixio,path={control}"),
        ]
        self.services.start("swtpm", command, self.folder).wait_for(server.exists)

    def start_sbs(self) -> None:
        """Make the server's keys and start it."""
        state = self.folder / "sbs"
        made = run_json("cafe-sbs", "init", "--dir", str(state))
        self.keys["admin"], self.sbs_root = made["admin_key"], made["sbs_root"]
        command = [str(BIN / "cafe-sbs"), "serve", "--dir", str(state), "--host", "127.0.0.1"]
        command += ["--port", self.url.rsplit(":", 1)[1], "--events"]
        os.environ["CAFE_SBS_QUOTE_MAX_AGE_SECONDS"] = str(QUOTE_MAX_AGE_SECONDS)
        service = self.services.start("sbs", command, self.folder, self.listener)
        service.wait_for(self._sbs_answers)

    def create_identity(self, role: str, *more: str) -> None:
        """Make an identity with this role, and keep its API key."""
        name = "acme" if role == "publisher" else role
        made = self.cafe("admin", "identity", "create", name, "--role", role, *more)
        self.keys[role] = made["api_key"]

    def _sbs_answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", int(self.url.rsplit(":", 1)[1])), 0.2):
                return True
        except OSError:
            return False

    def cafe(self, role: str, *command: str) -> Any:  # noqa: ANN401 - any JSON value
        """Run ``cafe`` as the identity of this role."""
        env = {"CAFE_SBS_URL": self.url, "CAFE_API_KEY": self.keys[role]}
        return run_json("cafe", *command, env=env)

    def measure_agent(self) -> str:
        """Measure the agent into PCR 14; return the digest of the TPM's endorsement key."""
        run_json("cafe-agent", "measure", "--tcti", self.tcti)
        return str(run_json("cafe-agent", "ek", "--tcti", self.tcti)["ek"])

    def enrol_host(self, ek: str) -> None:
        """Have the operator approve this TPM, enrol, and make the policy of the PCRs of now."""
        tcti = ("--tcti", self.tcti)
        self.cafe("operator", "host", "approve", "host-1", "--ek", ek)
        enrolled = run_json(
            *("cafe-agent", "enrol", "--sbs", self.url, "--sbs-root", self.sbs_root, "--name", "host-1"),
            *("--state", str(self.folder / "agent"), *tcti),
        )
        self.host_id = enrolled["host"]
        policy = self.folder / "policy.json"
        command = [str(BIN / "cafe-agent"), "pcrs", *tcti]
        policy.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
        self.cafe("operator", "policy", "set", str(policy))
        self.cafe("operator", "vm", "register", VM_ID, "--host", self.host_id, "--tenant", TENANT)

    def start_agent(self) -> None:
        """Start the agent, serving one VM on one socket."""
        command = [str(BIN / "cafe-agent"), "run", "--state", str(self.folder / "agent")]
        command += ["--vm", f"{VM_ID}={self.guest_socket}", "--backend", self.backend, "--events"]
        self.agent = self.services.start("agent", command, self.folder, self.listener)
        self.agent.wait_for(self.guest_socket.exists)

    def build(self, project: Path, out: Path) -> dict[str, Any]:
        """Make a publisher's keys and build a project with them; return what the build printed."""
        run_json("cafe", "publisher", "init", "--dir", str(self.publisher))
        built: dict[str, Any] = run_json(
            *("cafe", "build", str(project), "--publisher", str(self.publisher), "--output", str(out))
        )
        return built

    def push(self, package: str) -> None:
        """Seal a package to the SBS and upload it."""
        self.cafe("publisher", "push", package, "--publisher", str(self.publisher))

    def set_up(self, project: Path, out: Path) -> dict[str, Any]:
        """Do all of the above, what can be done at once at once; return what the build printed."""
        with ThreadPoolExecutor() as pool:
            building = pool.submit(self.build, project, out)
            serving = pool.submit(self.start_sbs)
            self.start_tpm()
            measuring = pool.submit(self.measure_agent)
            serving.result()
            people = [pool.submit(self.create_identity, role) for role in ("marketplace", "operator")]
            people[1].result()
            self.enrol_host(measuring.result())
            built = building.result()
            self.create_identity("publisher", "--publisher", str(self.publisher))
            pushing = pool.submit(self.push, built["package"])
            self.start_agent()
            pushing.result()
            people[0].result()
            return built

    def issue_licence(self, app: str, seats: int = 2) -> str:
        """Let the marketplace license an app to the tenant; return the licence's id."""
        command = ("licence", "issue", "--app", app, "--tenant", TENANT, "--seats", str(seats))
        return str(self.cafe("marketplace", *command)["id"])

    def guest_env(self) -> Mapping[str, str]:
        """Return the environment of a program in the VM."""
        return {**os.environ, "CAFE_SOCKET": str(self.guest_socket)}

    def extend_pcr(self, index: int) -> None:
        """Extend a PCR of the TPM, as booting other software would."""
        digest = TPMT_HA(hashAlg=TPM2_ALG.SHA256, digest=TPMU_HA(sha256=b"other software".ljust(32)))
        with ESAPI(self.tcti) as tpm:
            tpm.pcr_extend(getattr(ESYS_TR, f"PCR{index}"), TPML_DIGEST_VALUES([digest]))

    def flip_stored_byte(self) -> Path:
        """Change one bit of the largest stored chunk, as whoever can write the blob store could."""
        stored = [path for path in (self.folder / "sbs").rglob("*") if path.is_file() and path.name.isalnum()]
        chunk = max((path for path in stored if len(path.name) == 64), key=lambda path: path.stat().st_size)
        data = bytearray(chunk.read_bytes())
        data[len(data) // 2] ^= 1
        chunk.write_bytes(data)
        return chunk

    def wait_quote_expired(self) -> None:
        """Wait until the next grant needs a fresh quote."""
        time.sleep(QUOTE_MAX_AGE_SECONDS + 0.5)
