"""D05: after the whole story, no secret is in the database, the objects, the logs or an error's text."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import httpx
import pytest
from image_samples import IDENTITY, image, manifest
from sbs_host import GOOD, PCR, SoftHost
from sbs_site import Site, sealed_package

from cafe_lib.errors import CafeError
from cafe_lib.image.confidential import parse_confidential

pytestmark = [pytest.mark.anyio, pytest.mark.case("D05")]

PATTERN = b"a planted secret: 4f1d7c0a93be"
PLAIN = bytes(image()) + PATTERN.ljust(4096, b"!")


def forms(secret: bytes) -> Iterator[bytes]:
    """Give the forms in which a secret could have been written down."""
    yield secret
    yield secret.hex().encode()
    yield base64.b64encode(secret).rstrip(b"=")[:-1]
    yield repr(secret)[2:-1].encode()


def files(site: Site) -> dict[str, bytes]:
    """Return everything the SBS has on disk but its key files."""
    found = [path for path in site.folder.rglob("*") if path.is_file() and "keys" not in path.parts]
    return {str(path.relative_to(site.folder)): path.read_bytes() for path in found}


async def refusals(site: Site, host: SoftHost, release_id: bytes) -> None:
    """Have as many things refused as there are ways to."""
    session = await site.attested(host)
    api_key = site.api_keys["acme"]
    for key in (api_key[:-1], api_key + "x", api_key.replace("cafe", "caff")):
        answer = await site.http.get("/v1/releases", headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == 401
    for body in (PATTERN, b'{"name": "' + PATTERN + b'"}', b'{"' + PATTERN + b'": 1}'):
        assert (await site.ask("admin", "POST", "/v1/identities", body)).is_error
        assert (await site.ask("operator", "PUT", "/v1/policy", body)).is_error
    path = f"sessions/{session.session_id.hex()}"
    for what in ("evidence", "deployments", "renewals", "lease-ends", "renewal-challenges", "events"):
        with pytest.raises(CafeError):
            await site.post(f"{path}/{what}", PATTERN)
    await site.launch(session, release_id)
    with pytest.raises(CafeError):
        await site.launch(session, release_id)
    host.tpm.pcrs[PCR] = b"e" * 32
    with pytest.raises(CafeError):
        await site.attested(host)
    broken = sealed_package(site.keys, *manifest(PLAIN))[:-10] + PATTERN[:10]
    with pytest.raises(CafeError):
        await site.push(broken)


async def test_no_secret_is_written_down(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    said = bytearray()

    async def keep(answer: httpx.Response) -> None:
        if answer.is_error:
            said.extend(await answer.aread() + str(answer.headers).encode())

    site.http.event_hooks["response"] = [keep]
    await site.create_roles()
    await site.put_policy()
    made, confidential, chunks = manifest(PLAIN)
    release_id = await site.push(sealed_package(site.keys, made, confidential, chunks))
    host = await site.enrol(SoftHost("host-1"))
    await site.register_vm(host)
    await site.license()
    await refusals(site, host, release_id)
    host.tpm.pcrs[PCR] = GOOD
    session = await site.attested(host)
    parts = parse_confidential(confidential)
    secrets = {
        "planted": PATTERN,
        "publisher secret": IDENTITY.secret,
        "salt": parts.salt,
        **{f"chunk key {index}": key for index, key in enumerate(parts.keys)},
        "session secret": session._secret,
        "client MAC key": session.keys.client_mac,
        "server MAC key": session.keys.server_mac,
        "signing key": site.keys.signing_key.private_bytes_raw(),
        "release key": site.keys.release_key.private_bytes(),
        "store key": site.keys.store_key,
        **{f"API key of {name}": key.encode()[-64:] for name, key in site.api_keys.items()},
    }
    out, err = capfd.readouterr()
    places = files(site) | {"answers": bytes(said), "logs": (out + err).encode()}
    assert b"refused" in places["logs"]
    assert len(places["answers"]) > 1000
    for place, data in places.items():
        for name, secret in secrets.items():
            for form in forms(secret):
                assert form not in data, f"{name} in {place}"
    assert any(release_id in data for data in places.values()), "the scan sees what is there"


async def test_the_repr_of_what_holds_secrets_does_not_show_them(site: Site) -> None:
    host, _ = await site.ready()
    session = await site.attested(host)
    async with site.database.read() as tx:
        rows = [*await tx.sessions.find(), *await tx.identities.find(), *await tx.enrolments.find()]
    assert rows
    text = repr([rows, site.keys, session.keys]).encode()
    for secret in (site.keys.store_key, session.keys.client_mac, rows[0].sealed_secret):
        assert all(form not in text for form in forms(secret))
