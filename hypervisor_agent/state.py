"""The agent's state directory: its keys, the pinned SBS root and what the enrolment gave. All 0600.

==============  =======================================================================
``host_key``    Ed25519 private key, raw: signs session requests, so nobody else opens sessions
``ak.json``     the attestation key's TPM blobs; only this host's TPM can use them
``agent.json``  SBS address and root key, host id, TCTI
==============  =======================================================================
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cafe_lib.errors import HostError
from hypervisor_agent.tpm.port import AttestationKey

_HOST_KEY_BYTES = 32
_MAX_FILE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What the agent must know to talk to its SBS."""

    sbs_url: str
    sbs_root: bytes
    """Ed25519 public key, pinned by the operator at enrolment."""
    host_id: bytes
    name: str
    tcti: str


class StateDirectory:
    """Reads and writes the files. Raises HostError when one is missing, damaged or open to others."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def create(self) -> None:
        """Make the directory, 0700, and the host key if there is none yet."""
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.chmod(0o700)
        except OSError as error:
            raise HostError(f"state directory {self._path}: {error.strerror}") from error
        if not (self._path / "host_key").exists():
            self._write("host_key", Ed25519PrivateKey.generate().private_bytes_raw())

    def host_key(self) -> Ed25519PrivateKey:
        """Return the key that signs session requests."""
        raw = self._read("host_key")
        if len(raw) != _HOST_KEY_BYTES:
            raise HostError(f"{self._path / 'host_key'} is damaged", hint="enrol the host again")
        return Ed25519PrivateKey.from_private_bytes(raw)

    def attestation_key(self) -> AttestationKey:
        """Return the AK's blobs."""
        fields = self._read_json("ak.json", ("public", "private"))
        return AttestationKey(self._hex("ak.json", fields["public"]), self._hex("ak.json", fields["private"]))

    def store_attestation_key(self, ak: AttestationKey) -> None:
        """Keep the AK's blobs, replacing older ones."""
        self._write("ak.json", json.dumps({"public": ak.public.hex(), "private": ak.private.hex()}).encode())

    def enrolment(self) -> Enrolment:
        """Return what the enrolment gave."""
        names = ("sbs_url", "sbs_root", "host_id", "name", "tcti")
        fields = self._read_json("agent.json", names)
        root, host_id = (self._hex("agent.json", fields[name]) for name in ("sbs_root", "host_id"))
        return Enrolment(fields["sbs_url"], root, host_id, fields["name"], fields["tcti"])

    def store_enrolment(self, enrolment: Enrolment) -> None:
        """Keep what the enrolment gave."""
        fields = asdict(enrolment)
        fields |= {"sbs_root": enrolment.sbs_root.hex(), "host_id": enrolment.host_id.hex()}
        self._write("agent.json", json.dumps(fields, indent=1).encode())

    def _read(self, name: str) -> bytes:
        path = self._path / name
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise HostError(f"{path} may be read by others", hint=f"chmod 600 {path}")
                return file.read(_MAX_FILE_BYTES)
        except FileNotFoundError as error:
            raise HostError(f"{path} is missing", hint="enrol this host: cafe-agent enrol") from error
        except OSError as error:
            raise HostError(f"{path}: {error.strerror}") from error

    def _read_json(self, name: str, fields: tuple[str, ...]) -> dict[str, str]:
        try:
            values = json.loads(self._read(name))
        except ValueError as error:
            raise HostError(f"{self._path / name} is damaged", hint="enrol the host again") from error
        if not isinstance(values, dict) or not all(isinstance(values.get(field), str) for field in fields):
            raise HostError(f"{self._path / name} is damaged", hint="enrol the host again")
        return values

    def _hex(self, name: str, text: str) -> bytes:
        try:
            return bytes.fromhex(text)
        except ValueError as error:
            raise HostError(f"{self._path / name} is damaged", hint="enrol the host again") from error

    def _write(self, name: str, data: bytes) -> None:
        """Write atomically, so that a killed agent leaves the old or the new file."""
        path, temporary = self._path / name, self._path / f".{name}.new"
        try:
            temporary.unlink(missing_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise HostError(f"{path}: {error.strerror}") from error
