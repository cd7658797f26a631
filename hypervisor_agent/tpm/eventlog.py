"""The firmware's event log, as the kernel shows it: raw bytes, judged by the SBS only."""

from __future__ import annotations

from pathlib import Path

from cafe_lib.errors import TpmError

KERNEL_LOG = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
MAX_LOG_BYTES = 512 << 10


def read_event_log(path: Path | None) -> bytes:
    """Return the log, or nothing when no path was configured. Raises TpmError when it cannot be read."""
    if path is None:
        return b""
    try:
        with path.open("rb") as file:
            log = file.read(MAX_LOG_BYTES + 1)
    except OSError as error:
        raise TpmError(f"event log {path}: {error.strerror}") from error
    if len(log) > MAX_LOG_BYTES:
        raise TpmError(f"event log {path} is larger than {MAX_LOG_BYTES} bytes")
    return log
