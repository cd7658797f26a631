"""The key files of the SBS: who may read them, and when the signing key is certified anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cafe_lib.errors import ConflictError, HostError, SignatureError
from cafe_lib.wire.session import SigningCertificate, verify_certificate
from sbs_server.adapters import keyfiles
from sbs_server.adapters.keyfiles import create_keys, load_keys

NOW = 1_800_000_000
YEAR = keyfiles.CERTIFIED_SECONDS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_keys(tmp_path / "keys", NOW)
    return tmp_path / "keys"


def test_keys_are_the_same_after_loading(folder: Path) -> None:
    one, two = load_keys(folder, NOW), load_keys(folder, NOW)
    assert one.release_key.public == two.release_key.public
    assert verify_certificate(one.root_public, one.certificate, NOW).public_key == (
        two.signing_key.public_key().public_bytes_raw()
    )
    assert two.open(b"context", one.seal(b"context", b"secret")) == b"secret"


def test_keys_are_never_replaced(folder: Path) -> None:
    with pytest.raises(ConflictError):
        create_keys(folder, NOW)


@pytest.mark.case("E01")
@pytest.mark.parametrize("written", range(6))
def test_making_keys_can_be_repeated_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    write, left = keyfiles._write, written

    def write_some(path: Path, data: bytes) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        write(path, data)

    monkeypatch.setattr(keyfiles, "_write", write_some)
    with pytest.raises(KeyboardInterrupt):
        create_keys(tmp_path / "keys", NOW)
    assert not (tmp_path / "keys").exists(), "all keys or none"
    monkeypatch.undo()
    create_keys(tmp_path / "keys", NOW)
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
@pytest.mark.parametrize("name", ["signing.key", "release.key", "store.key", "root.key"])
def test_keys_that_others_may_read_are_refused(folder: Path, name: str, mode: int) -> None:
    (folder / name).chmod(mode)
    with pytest.raises(HostError, match=name):
        load_keys(folder, NOW)


@pytest.mark.parametrize("data", [b"", b"k" * 31, b"k" * 33, b"k" * 5000], ids=len)
@pytest.mark.parametrize("name", ["signing.key", "release.key", "store.key", "root.key", "root.pub"])
def test_files_that_are_no_keys_are_refused(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    with pytest.raises(HostError):
        load_keys(folder, NOW)


@pytest.mark.parametrize("name", ["signing.key", "release.key", "store.key", "root.pub"])
def test_a_missing_key_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(HostError, match=name):
        load_keys(folder, NOW)


def test_a_certificate_about_to_end_is_made_anew(folder: Path) -> None:
    old = load_keys(folder, NOW)
    assert load_keys(folder, NOW + YEAR // 2).certificate == old.certificate
    late = NOW + YEAR - keyfiles.RENEW_SECONDS + 1
    fresh = load_keys(folder, late)
    assert fresh.certificate != old.certificate
    assert verify_certificate(fresh.root_public, fresh.certificate, late + YEAR // 2).not_after == late + YEAR


def test_without_the_root_key_it_serves_until_the_certificate_ends(folder: Path) -> None:
    (folder / "root.key").unlink()
    assert load_keys(folder, NOW + YEAR).root_public == load_keys(folder, NOW).root_public
    with pytest.raises(HostError, match=r"signing\.cert"):
        load_keys(folder, NOW + YEAR + 1)


def test_the_certificate_of_another_key_or_root_is_refused(folder: Path) -> None:
    root = Ed25519PrivateKey.from_private_bytes((folder / "root.key").read_bytes())
    (folder / "root.key").unlink()
    other = Ed25519PrivateKey.generate()
    for signer, public in ((root, other), (other, load_keys(folder, NOW).signing_key)):
        certificate = SigningCertificate(public.public_key().public_bytes_raw(), NOW, NOW + 10)
        (folder / "signing.cert").write_bytes(certificate.sign(signer))
        with pytest.raises(HostError):
            load_keys(folder, NOW)


def test_a_sealed_secret_opens_only_in_its_context(folder: Path) -> None:
    keys = load_keys(folder, NOW)
    sealed = keys.seal(b"session 1", b"s" * 32)
    assert b"s" * 32 not in sealed
    assert sealed != keys.seal(b"session 1", b"s" * 32)
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for context, data in ((b"session 2", sealed), (b"session 1", changed), (b"session 1", b""), (b"", b"x")):
        with pytest.raises(SignatureError):
            keys.open(context, data)
