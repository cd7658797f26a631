"""What an operator may set besides the command line: environment variables ``CAFE_AGENT_*``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Defaults fit a production host."""

    model_config = SettingsConfigDict(env_prefix="CAFE_AGENT_", extra="ignore")

    tcti: str = "device:/dev/tpmrm0"
    """How to reach the TPM, as a TCTI string."""
    ca_file: Path | None = None
    """Certificates to trust for the SBS, instead of the system's."""
    event_log: Path | None = None
    """The firmware's event log to send with each quote; usually
    /sys/kernel/security/tpm0/binary_bios_measurements."""
    restarts: int = Field(default=5, ge=0, le=1000)
    """Fresh enclaves one lease may use within ``restart_window_seconds``."""
    restart_window_seconds: float = Field(default=60.0, gt=0)
    standby: bool = True
    """Keep a spare enclave, started, for each one that runs: a crash costs moments, and memory twice."""
    http_seconds: float = Field(default=20.0, gt=0)
    """How long one answer of the SBS may take."""
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
