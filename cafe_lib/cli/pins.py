"""Which release key each SBS has: what a publisher seals to must not change behind its back."""

from __future__ import annotations

import hmac
import json
import os
import tempfile
from pathlib import Path
from typing import Final

from cafe_lib.cli.console import warn
from cafe_lib.client.sbs import SbsClient
from cafe_lib.errors import DigestError, HostError, MalformedError
from cafe_lib.wire.keys import release_key_id
from cafe_lib.wire.limits import KEM_PUBLIC_BYTES

PINS_FILE: Final = "release-keys.json"
MAX_PINS_BYTES: Final = 256 * 1024


def fetch_release_key(client: SbsClient, publisher: Path, expected: str | None) -> bytes:
    """Return the SBS's release key if it is the one expected, or else the one pinned, or the first ever seen.

    :param publisher: the directory of the publisher's identity, which holds the pins.
    :param expected: the key or its id in hex; then nothing is pinned.
    :raises DigestError: another key than that: perhaps another SBS, or someone in between.
    """
    key = _offered(client)
    key_id = release_key_id(key).hex()
    if expected is None:
        _check_pin(publisher / PINS_FILE, client.address, key_id)
    elif not any(_same(expected.lower(), form) for form in (key_id, key.hex())):
        raise DigestError(f"the SBS has another release key than the one given: {key_id}")
    return key


def _offered(client: SbsClient) -> bytes:
    text = client.keys().get("release_key")
    try:
        key = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        key = b""
    if len(key) != KEM_PUBLIC_BYTES:
        raise MalformedError("the SBS did not give a release key")
    return key


def _check_pin(path: Path, address: str, key_id: str) -> None:
    pins = _read(path)
    pinned = pins.get(address)
    if pinned is None:
        _write(path, {**pins, address: key_id})
        warn(f"{address} was not known; from now on its release key must be {key_id}")
    elif not _same(pinned, key_id):
        raise DigestError(
            f"{address} has another release key than before: {key_id}, not {pinned}",
            hint=f"ask its operator; if that is right, remove the old key from {path}",
        )


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            pins = json.loads(file.read(MAX_PINS_BYTES))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"{path} is damaged") from error
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error
    if not isinstance(pins, dict) or not all(isinstance(value, str) for value in pins.values()):
        raise MalformedError(f"{path} is damaged")
    return pins


def _write(path: Path, pins: dict[str, str]) -> None:
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.write(json.dumps(pins, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error
