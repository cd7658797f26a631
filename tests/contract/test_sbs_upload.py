"""Uploads that lie: refused with a typed error, nothing visible, and no more read than needed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from image_samples import IDENTITY, OTHER, image, manifest, package
from sbs_host import SoftHost
from sbs_site import Site, sealed_package

from cafe_lib.client.problems import error_from_answer
from cafe_lib.errors import BusyError, CafeError, ConflictError
from cafe_lib.image.confidential import confidential_digest, parse_confidential
from cafe_lib.image.manifest import Manifest, secret_binary_id, sign_manifest
from cafe_lib.image.package import MAGIC, SEALED, encode_head
from cafe_lib.wire.keys import KemKeyPair, seal_confidential
from cafe_lib.wire.limits import CHUNK_BYTES
from sbs_server.domain.values import Identity

pytestmark = [pytest.mark.anyio, pytest.mark.case("C08")]

PLAIN = bytes(image()).ljust(3 * CHUNK_BYTES - 4096, b"p")
MADE, CONFIDENTIAL, CHUNKS = manifest(PLAIN)


@pytest.fixture
async def shop(site: Site) -> Site:
    await site.create_roles()
    return site


def visible(site: Site) -> list[str]:
    """Return the names of what is stored of releases."""
    return sorted(path.name for path in (site.folder / "blobs").rglob("*") if path.is_file())


async def refused(site: Site, data: bytes) -> str:
    with pytest.raises(CafeError) as caught:
        await site.push(data)
    assert (await site.done("acme", "GET", "/v1/releases"))["items"] == []
    return caught.value.code


def signed(cose: bytes, confidential: bytes, site: Site, key: KemKeyPair | None = None) -> bytes:
    public = (key or site.keys.release_key).public
    blob = seal_confidential(public, secret_binary_id(cose), confidential)
    return encode_head(SEALED, cose, blob) + b"".join(CHUNKS)


async def test_a_right_package(shop: Site) -> None:
    release_id = await shop.push(sealed_package(shop.keys, MADE, CONFIDENTIAL, CHUNKS))
    shown = await shop.done("acme", "GET", f"/v1/releases/{release_id.hex()}")
    assert (shown["chunks"], shown["image_bytes"]) == (3, len(PLAIN))
    assert len(visible(shop)) == 5


@pytest.mark.parametrize("cut", [0, 1, 8, 9, 100, 1000, 70_000, -CHUNK_BYTES, -1])
async def test_a_package_cut_short(shop: Site, cut: int) -> None:
    data = sealed_package(shop.keys, MADE, CONFIDENTIAL, CHUNKS)
    assert await refused(shop, data[:cut] or b"") == "malformed"


async def test_bytes_after_the_end(shop: Site) -> None:
    data = sealed_package(shop.keys, MADE, CONFIDENTIAL, CHUNKS)
    assert await refused(shop, data + b"\0") == "malformed"
    assert await refused(shop, data * 2) == "malformed"


SIZES = {
    "manifest of 4 GiB": MAGIC + b"\x02" + b"\xff" * 4,
    "manifest over its bound": MAGIC + b"\x02" + (4 * 1024 * 1024 + 129).to_bytes(4, "big"),
    "another kind": MAGIC + b"\x03" + bytes(8),
    "another magic": b"CAFEPKG2" + bytes(8),
    "zip bomb": b"PK\x03\x04" + bytes(1000),
    "gzip": b"\x1f\x8b" + bytes(1000),
}


@pytest.mark.parametrize("data", SIZES.values(), ids=SIZES)
async def test_a_head_that_lies(shop: Site, data: bytes) -> None:
    assert await refused(shop, data + bytes(100_000)) in {"limit", "malformed", "version"}
    assert visible(shop) == []


async def test_a_package_wrapped_for_its_publisher(shop: Site) -> None:
    assert await refused(shop, package(PLAIN, shop.folder / "wrapped.cafe")) == "version"


async def test_a_manifest_signed_by_another_publisher(shop: Site) -> None:
    made, confidential, chunks = manifest(PLAIN, OTHER)
    assert await refused(shop, sealed_package(shop.keys, made, confidential, chunks, OTHER)) == "signature"
    assert visible(shop) == []


async def test_a_manifest_that_names_another_publisher(shop: Site) -> None:
    forged = replace(MADE, publisher=b"p" * 32)
    payload_swapped = sign_manifest(IDENTITY.signing_key, MADE).replace(MADE.encode(), forged.encode())
    assert await refused(shop, signed(payload_swapped, CONFIDENTIAL, shop)) == "signature"


async def test_an_unsigned_manifest(shop: Site) -> None:
    cose = sign_manifest(IDENTITY.signing_key, MADE)
    for bad in (cose[:-64] + bytes(64), cose[:-1] + bytes([cose[-1] ^ 1])):
        assert await refused(shop, signed(bad, CONFIDENTIAL, shop)) == "signature"
    assert await refused(shop, encode_head(SEALED, MADE.encode(), b"b") + b"".join(CHUNKS)) == "malformed"


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a/b", "a\0b", "..", "", "A", "é"])
async def test_path_tricks_in_a_name(shop: Site, name: str) -> None:
    for field in ("name", "version"):
        made = Manifest(*(getattr(MADE, item) for item in Manifest.__dataclass_fields__))
        if field == "version" and name == "A":
            continue
        object.__setattr__(made, field, name)
        assert await refused(shop, sealed_package(shop.keys, made, CONFIDENTIAL, CHUNKS)) == "malformed"
    assert visible(shop) == []


@pytest.mark.parametrize("index", [0, 1, 2])
async def test_a_chunk_that_is_not_the_one_named(shop: Site, index: int) -> None:
    chunks = list(CHUNKS)
    chunks[index] = bytes([chunks[index][0] ^ 1]) + chunks[index][1:]
    assert await refused(shop, sealed_package(shop.keys, MADE, CONFIDENTIAL, chunks)) == "digest"
    assert not any(name in {"manifest", "sealed"} for name in visible(shop))


async def test_chunks_in_another_order(shop: Site) -> None:
    data = sealed_package(shop.keys, MADE, CONFIDENTIAL, [CHUNKS[1], CHUNKS[0], CHUNKS[2]])
    assert await refused(shop, data) == "digest"


async def test_a_confidential_part_that_is_not_ours(shop: Site) -> None:
    cose = sign_manifest(IDENTITY.signing_key, MADE)
    assert await refused(shop, signed(cose, CONFIDENTIAL, shop, KemKeyPair.generate())) == "signature"
    other = sign_manifest(IDENTITY.signing_key, replace(MADE, version="9"))
    blob = seal_confidential(shop.keys.release_key.public, secret_binary_id(other), CONFIDENTIAL)
    assert await refused(shop, encode_head(SEALED, cose, blob) + b"".join(CHUNKS)) == "signature"
    assert visible(shop) == []


async def test_a_confidential_part_of_another_content(shop: Site) -> None:
    cose = sign_manifest(IDENTITY.signing_key, MADE)
    swapped = replace(parse_confidential(CONFIDENTIAL), salt=b"s" * 32).encode()
    assert await refused(shop, signed(cose, swapped, shop)) == "digest"
    said = parse_confidential(CONFIDENTIAL)
    fewer = replace(said, keys=said.keys[:2], tags=said.tags[:2]).encode()
    cose = sign_manifest(IDENTITY.signing_key, replace(MADE, confidential_digest=confidential_digest(fewer)))
    assert await refused(shop, signed(cose, fewer, shop)) == "digest"


async def test_duplicates(shop: Site) -> None:
    data = sealed_package(shop.keys, MADE, CONFIDENTIAL, CHUNKS)
    release_id = await shop.push(data)
    again = sealed_package(shop.keys, replace(MADE, heap_bytes=2 << 20), CONFIDENTIAL, CHUNKS)
    for package_bytes in (data, again):
        with pytest.raises(ConflictError):
            await shop.push(package_bytes)
    (known,) = (await shop.done("acme", "GET", "/v1/releases"))["items"]
    assert known["id"] == release_id.hex()


class Endless:
    """A body that never ends, and counts what was taken of it."""

    def __init__(self, head: bytes) -> None:
        self.head, self.taken = head, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.head
        while self.taken < 1 << 30:
            self.taken += CHUNK_BYTES
            yield bytes(CHUNK_BYTES)


@pytest.mark.parametrize("whole", [True, False], ids=["after a package", "of zeros"])
async def test_an_endless_body_is_not_read_to_its_end(shop: Site, *, whole: bool) -> None:
    body = Endless(sealed_package(shop.keys, MADE, CONFIDENTIAL, CHUNKS) if whole else bytes(1))
    headers = {"authorization": f"Bearer {shop.api_keys['acme']}"}
    answer = await shop.http.post("/v1/releases", content=body, headers=headers)
    assert error_from_answer(answer.status_code, answer.content).code == "malformed"
    assert body.taken <= 2 * CHUNK_BYTES


async def test_a_body_for_people_is_bounded(shop: Site) -> None:
    body = Endless(b'{"name": "')
    headers = {"authorization": f"Bearer {shop.api_keys['admin']}", "content-type": "application/json"}
    answer = await shop.http.post("/v1/identities", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "limit")
    assert body.taken <= 4 * CHUNK_BYTES


async def test_uploads_at_once_are_bounded(shop: Site) -> None:
    from sbs_server.app import make_services  # noqa: PLC0415 -- the counter is in the service

    releases = make_services(shop.parts).releases
    async with shop.database.read() as tx:
        (caller,) = await tx.identities.find(name="acme")
    assert isinstance(caller, Identity)

    async def another() -> AsyncIterator[bytes]:
        with releases._slot(caller), pytest.raises(BusyError), releases._slot(caller):
            pass
        yield sealed_package(shop.keys, MADE, CONFIDENTIAL, CHUNKS)

    assert (await releases.upload(caller, another())).title == "acme/sample@1.2.3"


async def test_an_identity_that_ends_during_its_upload_publishes_nothing(shop: Site) -> None:
    data = sealed_package(shop.keys, MADE, CONFIDENTIAL, CHUNKS)
    found = (await shop.done("admin", "GET", "/v1/identities"))["items"]
    (acme,) = [item["id"] for item in found if item["name"] == "acme"]

    async def body() -> AsyncIterator[bytes]:
        yield data[:-1]
        await shop.done("admin", "DELETE", f"/v1/identities/{acme}")
        yield data[-1:]

    headers = {"authorization": f"Bearer {shop.api_keys['acme']}"}
    answer = await shop.http.post("/v1/releases", content=body(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert (await shop.done("admin", "GET", "/v1/releases"))["items"] == []


async def test_an_upload_broken_off_can_be_repeated(shop: Site) -> None:
    data = sealed_package(shop.keys, MADE, CONFIDENTIAL, CHUNKS)
    assert await refused(shop, data[: -CHUNK_BYTES // 2]) == "malformed"
    release_id = await shop.push(data)
    await shop.put_policy()
    host = await shop.enrol(SoftHost("host-1"))
    await shop.register_vm(host)
    await shop.license()
    assert (await shop.launch(await shop.attested(host), release_id))[1] == CHUNKS
