"""The state directory: private, atomic, and a typed error for whatever is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cafe_lib.errors import HostError
from hypervisor_agent.state import Enrolment, StateDirectory
from hypervisor_agent.tpm.port import AttestationKey

ENROLMENT = Enrolment("http://127.0.0.1:1", b"r" * 32, b"h" * 16, "host", "device:/dev/tpmrm0")


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    directory = StateDirectory(tmp_path / "state")
    directory.create()
    return directory


@pytest.mark.case("D06")
def test_everything_is_readable_by_the_agent_only(state: StateDirectory, tmp_path: Path) -> None:
    state.store_attestation_key(AttestationKey(b"public", b"private"))
    state.store_enrolment(ENROLMENT)
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()}
    assert modes == {"host_key": 0o600, "ak.json": 0o600, "agent.json": 0o600}


def test_what_was_stored_comes_back(state: StateDirectory) -> None:
    state.store_attestation_key(AttestationKey(b"public", b"private"))
    state.store_enrolment(ENROLMENT)
    assert state.enrolment() == ENROLMENT
    assert state.attestation_key() == AttestationKey(b"public", b"private")


def test_the_host_key_stays_the_same(state: StateDirectory) -> None:
    before = state.host_key().private_bytes_raw()
    state.create()
    assert state.host_key().private_bytes_raw() == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("agent.json", b"", id="empty"),
        pytest.param("agent.json", b"[]", id="not a map"),
        pytest.param("agent.json", b"{}", id="fields missing"),
        pytest.param("agent.json", b"\xff\xfe", id="not text"),
        pytest.param(
            "agent.json", b'{"sbs_url":"","sbs_root":"zz","host_id":"","name":"","tcti":""}', id="not hex"
        ),
        pytest.param("ak.json", b'{"public": 1, "private": "00"}', id="wrong type"),
        pytest.param("host_key", b"short", id="short key"),
    ],
)
def test_a_damaged_file_is_a_typed_error(
    state: StateDirectory, tmp_path: Path, name: str, content: bytes
) -> None:
    state.store_attestation_key(AttestationKey(b"public", b"private"))
    state.store_enrolment(ENROLMENT)
    (tmp_path / "state" / name).write_bytes(content)
    with pytest.raises(HostError):
        {"agent.json": state.enrolment, "ak.json": state.attestation_key, "host_key": state.host_key}[name]()


def test_a_key_that_others_may_read_is_refused(state: StateDirectory, tmp_path: Path) -> None:
    (tmp_path / "state" / "host_key").chmod(0o640)
    with pytest.raises(HostError, match="read by others"):
        state.host_key()


def test_a_host_that_is_not_enrolled_is_told_what_to_do(state: StateDirectory) -> None:
    with pytest.raises(HostError) as caught:
        state.enrolment()
    assert "cafe-agent enrol" in caught.value.hint


def test_a_directory_that_cannot_be_made_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError):
        StateDirectory(tmp_path / "file" / "state").create()
