"""The release key a publisher seals to: pinned when first seen, refused when it changes."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from cafe_lib.cli.pins import PINS_FILE, fetch_release_key
from cafe_lib.client.sbs import SbsClient
from cafe_lib.errors import CafeError, DigestError, HostError, MalformedError
from cafe_lib.wire.keys import KemKeyPair, release_key_id

ONE, OTHER = KemKeyPair.generate().public, KemKeyPair.generate().public


def _sbs(release_key: object, address: str = "http://127.0.0.1:1") -> SbsClient:
    body = json.dumps({"release_key": release_key}).encode()
    answer = httpx.MockTransport(lambda _: httpx.Response(200, stream=httpx.ByteStream(body)))
    return SbsClient(address, transport=answer)


def test_the_first_key_is_pinned_for_its_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch_release_key(_sbs(ONE.hex()), tmp_path, None) == ONE
    assert release_key_id(ONE).hex() in capsys.readouterr().err
    assert fetch_release_key(_sbs(ONE.hex()), tmp_path, None) == ONE
    assert capsys.readouterr().err == ""
    with pytest.raises(DigestError):
        fetch_release_key(_sbs(OTHER.hex()), tmp_path, None)
    assert fetch_release_key(_sbs(OTHER.hex(), "https://other.example"), tmp_path, None) == OTHER
    assert len(json.loads((tmp_path / PINS_FILE).read_text())) == 2


@pytest.mark.parametrize("form", [ONE.hex(), release_key_id(ONE).hex(), release_key_id(ONE).hex().upper()])
def test_a_key_that_was_given_counts_and_pins_nothing(tmp_path: Path, form: str) -> None:
    assert fetch_release_key(_sbs(ONE.hex()), tmp_path, form) == ONE
    with pytest.raises(DigestError):
        fetch_release_key(_sbs(OTHER.hex()), tmp_path, form)
    assert not (tmp_path / PINS_FILE).exists()


@pytest.mark.parametrize("given", ["", "00", "not hex", "schlüssel", ONE.hex()[:-2], ONE.hex() + "00"])
def test_a_given_key_that_is_none_matches_nothing(tmp_path: Path, given: str) -> None:
    with pytest.raises(DigestError):
        fetch_release_key(_sbs(ONE.hex()), tmp_path, given)


@pytest.mark.parametrize(
    "offered",
    [None, 1, "", "zz", ONE.hex()[:-2], ONE.hex() + "00", ["00"]],
    ids=lambda value: repr(value)[:12],
)
def test_an_sbs_without_a_proper_key(tmp_path: Path, offered: object) -> None:
    with pytest.raises(MalformedError):
        fetch_release_key(_sbs(offered), tmp_path, None)
    assert not (tmp_path / PINS_FILE).exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"http://127.0.0.1:1": 5}', "[" * 100_000], ids=lambda text: text[:8] or "empty"
)
def test_damaged_pins_are_not_taken_for_none(tmp_path: Path, text: str) -> None:
    (tmp_path / PINS_FILE).write_text(text)
    with pytest.raises(MalformedError):
        fetch_release_key(_sbs(ONE.hex()), tmp_path, None)
    assert (tmp_path / PINS_FILE).read_text() == text


def test_pins_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        fetch_release_key(_sbs(ONE.hex()), tmp_path / "none", None)
    assert isinstance(caught.value, CafeError)
