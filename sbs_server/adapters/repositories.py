"""Repositories over tables: a column for each field of the value, under the same name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from sqlalchemy import Row, Select, Table, and_, delete, func, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.elements import ColumnElement

from cafe_lib.errors import ConflictError, MalformedError
from cafe_lib.wire import limits
from sbs_server.adapters import tables
from sbs_server.attestation.sessions import ATTESTED, ENDED, OFFERED
from sbs_server.domain import values
from sbs_server.domain.ports import Audit, Condition, Events, Key, Leases, Policies, Repository

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)
else:
    T = TypeVar("T")

_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_CURSOR: Final = re.compile(r"([0-9]{1,15})-([0-9a-f]{1,400})")


class SqlRepository(Generic[T]):
    """See the port."""

    def __init__(self, connection: AsyncConnection, table: Table, kind: type[T]) -> None:
        self._connection = connection
        self._table = table
        self._kind = kind
        self._keys = tuple(table.primary_key.columns)

    async def get(self, *key: Key) -> T | None:
        """See the port."""
        return await self._one(select(self._table).where(self._at(key)))

    async def lock(self, *key: Key) -> T | None:
        """See the port; SQLite writes one transaction at a time anyway."""
        return await self._one(select(self._table).where(self._at(key)).with_for_update())

    async def find(self, *, limit: int | None = None, **equal: Condition) -> list[T]:
        """See the port."""
        query = select(self._table).where(self._where(equal)).order_by(*self._order())
        return await self._many(query if limit is None else query.limit(limit))

    async def page(self, after: str | None, limit: int, **equal: Condition) -> tuple[list[T], str | None]:
        """See the port."""
        query = select(self._table).where(self._where(equal)).order_by(*self._order()).limit(limit + 1)
        if after is not None:
            query = query.where(tuple_(*self._order()) > tuple_(*self._from_cursor(after)))
        found = await self._many(query)
        return found[:limit], self._cursor(found[limit - 1]) if len(found) > limit else None

    async def count(self, **equal: Condition) -> int:
        """See the port."""
        result = await self._connection.execute(
            select(func.count()).select_from(self._table).where(self._where(equal))
        )
        return int(result.scalar_one())

    async def add(self, value: T) -> None:
        """See the port."""
        await self._change(insert(self._table).values(**self._columns(value)))

    async def put(self, value: T) -> None:
        """See the port."""
        fields = self._columns(value)
        at = self._at(tuple(fields[column.name] for column in self._keys))
        await self._change(update(self._table).where(at).values(**fields))

    async def remove(self, *key: Key) -> None:
        """See the port."""
        await self._connection.execute(delete(self._table).where(self._at(key)))

    def _columns(self, value: T) -> dict[str, Any]:
        return asdict(value)

    async def _change(self, statement: Any) -> None:  # noqa: ANN401 -- insert or update
        try:
            await self._connection.execute(statement)
        except IntegrityError as error:
            raise ConflictError(f"{self._table.name}: a key or a unique value is taken") from error

    def _at(self, key: Sequence[Key]) -> ColumnElement[bool]:
        return and_(*(column == part for column, part in zip(self._keys, key, strict=True)))

    def _where(self, equal: dict[str, Condition]) -> ColumnElement[bool]:
        columns = self._table.c
        return and_(
            True,  # noqa: FBT003 -- the neutral element: no condition
            *(
                columns[name].is_(None) if value is None else columns[name] == value
                for name, value in equal.items()
            ),
        )

    def _order(self) -> list[ColumnElement[Any]]:
        return [self._table.c.created_at, *self._keys]

    def _cursor(self, value: T) -> str:
        """Where `value` stands: its time, and its one-column key in hex."""
        fields = asdict(value)
        key = fields[self._keys[0].name]
        data = key if isinstance(key, bytes) else str(key).encode()
        return f"{fields['created_at']}-{data.hex()}"

    def _from_cursor(self, cursor: str) -> tuple[Any, ...]:
        found = _CURSOR.fullmatch(cursor)
        try:
            data = bytes.fromhex(found[2]) if found else None
            if found is None or data is None:
                raise MalformedError("not a place in this list")
            python_type = self._keys[0].type.python_type
            key: Key = data if python_type is bytes else python_type(data.decode())
        except ValueError as error:
            raise MalformedError("not a place in this list") from error
        if isinstance(key, int) and key >= 1 << 63:
            raise MalformedError("not a place in this list")
        return int(found[1]), key

    async def _one(self, query: Select[Any]) -> T | None:
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else self._value(row)

    async def _many(self, query: Select[Any]) -> list[T]:
        return [self._value(row) for row in (await self._connection.execute(query)).all()]

    def _value(self, row: Row[Any]) -> T:
        return self._kind(**row._mapping)  # noqa: SLF001 -- SQLAlchemy's documented name


class SqlLeases(SqlRepository[values.Lease]):
    """See the port."""

    async def expire(self, now: int) -> None:
        """See the port."""
        columns = self._table.c
        reason = func.coalesce(columns.end_reason, values.LeaseEndReason.EXPIRED.value)
        over = and_(columns.ended_at.is_(None), columns.frees_at <= now)
        statement = update(self._table).where(over).values(ended_at=columns.frees_at, end_reason=reason)
        await self._connection.execute(statement)

    async def taken_seats(self, licence_id: bytes, now: int) -> list[int]:
        """See the port."""
        seat = self._table.c.seat
        query = select(seat).where(self._taken(now), self._table.c.licence_id == licence_id).order_by(seat)
        return [int(number) for number in (await self._connection.execute(query)).scalars()]

    async def running(self, host_id: bytes, now: int) -> int:
        """See the port."""
        query = select(func.count()).where(self._taken(now), self._table.c.host_id == host_id)
        return int((await self._connection.execute(query)).scalar_one())

    async def over_since(self, host_id: bytes, since: int, limit: int) -> list[values.Lease]:
        """See the port."""
        columns = self._table.c
        over = and_(columns.host_id == host_id, columns.end_reason.is_not(None), columns.frees_at >= since)
        return await self._many(
            select(self._table).where(over).order_by(columns.frees_at.desc()).limit(limit)
        )

    def _taken(self, now: int) -> ColumnElement[bool]:
        return and_(self._table.c.ended_at.is_(None), self._table.c.frees_at > now)


class SqlEvents(SqlRepository[values.Event]):
    """See the port."""

    async def after(self, host_id: bytes, number: int, limit: int) -> list[values.Event]:
        """See the port."""
        wanted = and_(self._table.c.host_id == host_id, self._table.c.number > number)
        query = select(self._table).where(wanted).order_by(self._table.c.number).limit(limit)
        return await self._many(query)


class SqlPolicies(SqlRepository[values.PolicyVersion]):
    """See the port."""

    async def latest(self) -> values.PolicyVersion | None:
        """See the port."""
        return await self._one(select(self._table).order_by(self._table.c.version.desc()).limit(1))


class SqlAudit(SqlRepository[values.AuditRecord]):
    """See the port; the database numbers the records."""

    def _columns(self, value: values.AuditRecord) -> dict[str, Any]:
        fields = asdict(value)
        del fields["number"]
        return fields

    def _order(self) -> list[ColumnElement[Any]]:
        return [self._table.c.number]

    def _cursor(self, value: values.AuditRecord) -> str:
        return str(value.number)

    def _from_cursor(self, cursor: str) -> tuple[Any, ...]:
        if not _NUMBER.fullmatch(cursor):
            raise MalformedError("not the number of a record")
        return (int(cursor),)


class SqlTransaction:
    """See the port."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self.identities: Repository[values.Identity] = SqlRepository(
            connection, tables.identities, values.Identity
        )
        self.releases: Repository[values.Release] = SqlRepository(connection, tables.releases, values.Release)
        self.vms: Repository[values.Vm] = SqlRepository(connection, tables.vms, values.Vm)
        self.licences: Repository[values.Licence] = SqlRepository(connection, tables.licences, values.Licence)
        self.approvals: Repository[values.Approval] = SqlRepository(
            connection, tables.approvals, values.Approval
        )
        self.enrolments: Repository[values.Enrolment] = SqlRepository(
            connection, tables.enrolments, values.Enrolment
        )
        self.hosts: Repository[values.Host] = SqlRepository(connection, tables.hosts, values.Host)
        self.sessions: Repository[values.Session] = SqlRepository(connection, tables.sessions, values.Session)
        self.record_numbers: Repository[values.RecordNumber] = SqlRepository(
            connection, tables.record_numbers, values.RecordNumber
        )
        self.leases: Leases = SqlLeases(connection, tables.leases, values.Lease)
        self.events: Events = SqlEvents(connection, tables.events, values.Event)
        self.policies: Policies = SqlPolicies(connection, tables.policies, values.PolicyVersion)
        self.audit: Audit = SqlAudit(connection, tables.audit, values.AuditRecord)

    async def purge(self, now: int, keep_seconds: int) -> None:
        """See the port; the numbers of a session's records go with it."""
        columns = tables.sessions.c
        over = and_(columns.expires_at <= now, columns.state.in_((OFFERED, ATTESTED)))
        await self._connection.execute(update(tables.sessions).where(over).values(state=ENDED))
        for table in (tables.enrolments, tables.sessions):
            await self._connection.execute(delete(table).where(table.c.expires_at < now - keep_seconds))
        # no lease outlives an event by as much: whoever missed it so long runs nothing that it ends
        oldest = now - keep_seconds - limits.MAX_LEASE_SECONDS
        await self._connection.execute(delete(tables.events).where(tables.events.c.created_at < oldest))
