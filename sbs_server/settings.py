"""What the operator of the SBS may set, by environment variables CAFE_SBS_*."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from cafe_lib.wire import limits
from sbs_server.domain.values import Terms

_PACKAGE: Final = Path(__file__).resolve().parent
Seconds = Annotated[int, Field(ge=1, le=limits.MAX_SESSION_SECONDS)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Rate = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,6}/(second|minute|hour|day)$")]


def _migrations() -> Path:
    """Find the migrations: inside the package in a wheel, beside it in a checkout."""
    inside = _PACKAGE / "migrations"
    return inside if inside.is_dir() else _PACKAGE.parent / "migrations"


class Settings(BaseSettings):
    """All have defaults good for one server. The names of times and caps are those of `Terms`."""

    model_config = SettingsConfigDict(env_prefix="CAFE_SBS_", extra="ignore")

    dir: Path = Path("sbs")
    """Holds keys/, and by default the database and the objects."""
    database_url: str | None = Field(default=None, repr=False)
    """sqlite+aiosqlite:///FILE or postgresql+psycopg://...; default: sbs.sqlite3 in `dir`."""
    blobs: str | None = Field(default=None, repr=False)
    """A folder or a URL such as s3://bucket/prefix; default: blobs in `dir`."""
    migrations: Path = Field(default_factory=_migrations)

    enrolment_seconds: Seconds = 300
    offer_seconds: Seconds = 120
    session_seconds: Seconds = 3600
    retention_seconds: Seconds = 24 * 3600
    quote_max_age_seconds: Seconds = 3600
    lease_seconds: Seconds = 300
    lease_margin_seconds: Seconds = 10
    keep_alive_seconds: Seconds = 15
    max_enrolments_per_key: Count = 8
    max_offers_per_host: Count = 16
    max_sessions_per_host: Count = 32
    max_records_per_session: Count = 10_000
    max_leases_per_host: Annotated[int, Field(ge=1, le=limits.MAX_LEASES)] = limits.MAX_LEASES
    max_streams_per_host: Count = 8
    max_uploads_per_publisher: Count = 2

    rate_address: Rate = "12000/minute"
    """Requests of one address."""
    rate_people: Rate = "12000/minute"
    """Requests of one identity."""
    rate_failed_key: Rate = "60/minute"
    """Wrong API keys of one address."""
    rate_session: Rate = "300/minute"
    """Sessions of one host."""
    rate_deployment: Rate = "600/minute"
    """Requests of one host for releases, the same one sent again included."""
    rate_refusal: Rate = "60/minute"
    """Audit records of refusals of callers who showed no identity, all together."""

    def terms(self) -> Terms:
        """Return the times and caps."""
        return Terms(**{field.name: getattr(self, field.name) for field in fields(Terms)})

    def rates(self) -> dict[str, str]:
        """Return the rate of each kind of request."""
        return {
            "address": self.rate_address,
            "people": self.rate_people,
            "failed key": self.rate_failed_key,
            "session": self.rate_session,
            "deployment": self.rate_deployment,
            "refusal": self.rate_refusal,
        }

    def database(self) -> str:
        """Return the database's URL."""
        return self.database_url or f"sqlite+aiosqlite:///{self.dir.absolute() / 'sbs.sqlite3'}"

    def objects(self) -> str:
        """Return where the objects are."""
        return self.blobs or str(self.dir.absolute() / "blobs")

    def keys(self) -> Path:
        """Return where the keys are."""
        return self.dir / "keys"
