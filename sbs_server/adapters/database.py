"""The database: SQLite or PostgreSQL through SQLAlchemy, and its schema through Alembic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from cafe_lib.errors import HostError, TransportError
from sbs_server.adapters.repositories import SqlTransaction
from sbs_server.domain.ports import Transaction

_BUSY_SECONDS: Final = 30
_WRITES: Final = "cafe_writes"


class Database:
    """See the port `Store`."""

    def __init__(self, url: str) -> None:
        """Prepare the engine; nothing is opened yet. Raises HostError for an address that is none."""
        try:
            parsed = make_url(url)
            self._engine = create_async_engine(
                parsed, pool_pre_ping=not _is_sqlite(parsed.drivername), hide_parameters=True
            )
        except (ArgumentError, ImportError) as error:
            raise HostError(f"the address of the database is not usable: {type(error).__name__}") from error
        self._writer: AbstractAsyncContextManager[None] = nullcontext()
        if _is_sqlite(parsed.drivername):
            self._writer = asyncio.Lock()
            _prepare_sqlite(self._engine)
        self._write_engine = self._engine.execution_options(**{_WRITES: True})

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """See the port."""
        with _mapped():
            async with self._engine.begin() as connection:
                yield SqlTransaction(connection)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Transaction]:
        """See the port. On SQLite this process queues up here, in order, instead of in SQLite's busy wait."""
        with _mapped():
            async with self._writer, self._write_engine.begin() as connection:
                yield SqlTransaction(connection)

    async def migrate(self, migrations: Path) -> None:
        """Bring the schema to the newest version."""
        with _mapped():
            async with self._write_engine.begin() as connection:
                await connection.run_sync(_upgrade, migrations)

    async def connection(self) -> AsyncConnection:
        """Return a connection that the caller closes; for tests of the schema."""
        return await self._engine.connect()

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


def _is_sqlite(driver: str) -> bool:
    return driver.startswith("sqlite")


def _prepare_sqlite(engine: AsyncEngine) -> None:
    """Take over transactions from the driver, which would begin them late and upgrade locks in the middle."""

    def configure(connection: Any, _record: object) -> None:  # noqa: ANN401 -- a DBAPI connection
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (f"busy_timeout={_BUSY_SECONDS * 1000}", "journal_mode=WAL", "synchronous=FULL"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine.sync_engine, "connect", configure)
    event.listen(engine.sync_engine, "begin", begin)


def _upgrade(connection: Connection, migrations: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        # the text of a database error quotes the statement and its values: only the kind is kept
        raise TransportError(f"the database failed: {type(error).__name__}") from None
    except OSError as error:
        raise TransportError(f"the database cannot be reached: {type(error).__name__}") from error
