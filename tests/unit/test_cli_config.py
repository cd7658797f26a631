"""Whom a command talks to, and as whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from cafe_lib.cli.config import MAX_FILE_BYTES, Flags, load_target
from cafe_lib.errors import CafeError, MalformedError, NotFoundError, UnauthenticatedError

KEY = "cafe_0123_secret"


def _file(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def _config(path: Path, text: str, mode: int = 0o600) -> dict[str, str]:
    return {"CAFE_CONFIG": str(_file(path / "config.toml", text, mode))}


def test_flags_come_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    env = _config(tmp_path, f'sbs = "https://file"\napi_key = "{KEY}-file"\nca_file = "file.pem"\n')
    assert load_target(Flags(), env).url == "https://file"
    assert load_target(Flags(), env).api_key == f"{KEY}-file"
    assert load_target(Flags(), env).ca_file == Path("file.pem")
    env |= {"CAFE_SBS_URL": "https://env", "CAFE_API_KEY": f"{KEY}-env\n", "CAFE_CA_FILE": "env.pem"}
    assert load_target(Flags(), env).url == "https://env"
    assert load_target(Flags(), env).api_key == f"{KEY}-env"
    assert load_target(Flags(), env).ca_file == Path("env.pem")
    flags = Flags("https://flag", _file(tmp_path / "key", f"{KEY}-flag\n"), Path("flag.pem"))
    target = load_target(flags, env)
    assert (target.url, target.api_key, target.ca_file) == ("https://flag", f"{KEY}-flag", Path("flag.pem"))


def test_the_key_does_not_show_in_the_value() -> None:
    target = load_target(Flags("https://x"), {"CAFE_API_KEY": KEY, "CAFE_CONFIG": "/dev/null"})
    assert KEY not in repr(target)


@pytest.mark.parametrize(
    ("text", "mode", "error"),
    [
        pytest.param("sbs = ", 0o600, MalformedError, id="not-toml"),
        pytest.param("sbs = 1", 0o600, MalformedError, id="wrong-type"),
        pytest.param('sps = "https://x"', 0o600, MalformedError, id="misspelt"),
        pytest.param('sbs = ""', 0o600, MalformedError, id="empty-address"),
        pytest.param("", 0o600, MalformedError, id="no-address"),
        pytest.param("a = " + "[" * 10000, 0o600, MalformedError, id="deep-nesting"),
        pytest.param("#" * (MAX_FILE_BYTES + 1), 0o600, MalformedError, id="too-long"),
        pytest.param(f'sbs = "https://x"\napi_key = "{KEY}"', 0o644, UnauthenticatedError, id="readable-key"),
        pytest.param(f'api_key = ["{KEY}"]', 0o600, MalformedError, id="key-of-wrong-type"),
    ],
)
def test_bad_configuration_files(tmp_path: Path, text: str, mode: int, error: type[CafeError]) -> None:
    with pytest.raises(error) as caught:
        load_target(Flags(), _config(tmp_path, text, mode))
    assert KEY not in f"{caught.value} {caught.value.hint}"


def test_a_file_without_a_key_may_be_readable(tmp_path: Path) -> None:
    assert load_target(Flags(), _config(tmp_path, 'sbs = "https://x"', 0o644)).api_key is None


def test_files_that_are_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        load_target(Flags("https://x"), {"CAFE_CONFIG": str(tmp_path / "none")})
    env = {"CAFE_CONFIG": "/dev/null"}
    with pytest.raises(NotFoundError):
        load_target(Flags("https://x", tmp_path / "none"), env)
    with pytest.raises(UnauthenticatedError):
        load_target(Flags("https://x", _file(tmp_path / "key", KEY, 0o640)), env)
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    binary.chmod(0o600)
    with pytest.raises(MalformedError):
        load_target(Flags("https://x", binary), env)
