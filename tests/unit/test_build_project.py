"""cafe.toml and the publisher's identity: every mistake is named, none goes through."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cafe_lib.errors import BuildError, ConflictError
from cafe_lib.toolchain.keys import KEY_FILE, SECRET_FILE, create_publisher, load_publisher
from cafe_lib.toolchain.project import load_project, parse_project, parse_size

BASE = 'name = "app"\nversion = "1.0"\nsources = ["a.c"]\nheaders = ["a.h"]\n'


def test_defaults() -> None:
    file = parse_project(BASE)
    assert (file.memory.stack, file.memory.slots, file.build_mode, file.isa) == (
        262144,
        4,
        "production",
        None,
    )


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("", "name"),
        ("name", "end of document"),
        ("= = =", "cafe.toml"),
        ("[" * 5000, "cafe.toml"),
        (BASE.replace('"app"', '"App"'), "name"),
        (BASE.replace('"app"', '"../app"'), "name"),
        (BASE.replace('"app"', '""'), "name"),
        (BASE.replace('"app"', '"' + "a" * 64 + '"'), "name"),
        (BASE.replace('"app"', "7"), "name"),
        (BASE.replace('"1.0"', '"1/0"'), "version"),
        (BASE.replace('"1.0"', "1.0"), "version"),
        (BASE.replace('["a.c"]', "[]"), "sources"),
        (BASE.replace('["a.c"]', '"a.c"'), "sources"),
        (BASE.replace('["a.c"]', '[""]'), "sources"),
        (BASE.replace('["a.c"]', '["a\\u0000.c"]'), "sources"),
        (BASE.replace('["a.h"]', "[]"), "headers"),
        (BASE + 'langauge = "c"', "langauge"),
        (BASE + 'language = "rust"', "language"),
        (BASE + 'isa = "x86-64-v4"', "isa"),
        (BASE + 'build_mode = "release"', "build_mode"),
        (BASE + "deadline_ms = 0", "deadline_ms"),
        (BASE + "deadline_ms = 3600001", "deadline_ms"),
        (BASE + 'deadline_ms = "1s"', "deadline_ms"),
        (BASE + 'waivers = ["abc"]', "waivers"),
        (BASE + "cflags = [1]", "cflags"),
        (BASE + "[memory]\nstack = 100", "memory.stack"),
        (BASE + '[memory]\nstack = "1T"', "memory.stack"),
        (BASE + '[memory]\nheap = "17G"', "memory.heap"),
        (BASE + "[memory]\nheap = -1", "memory.heap"),
        (BASE + "[memory]\nheap = true", "memory.heap"),
        (BASE + '[memory]\nheap = "999999999999G"', "memory.heap"),
        (BASE + "[memory]\nslots = 0", "memory.slots"),
        (BASE + "[memory]\nslots = 65", "memory.slots"),
        (BASE + '[memory]\nslot = "65M"', "memory.slot"),
        (BASE + '[memory]\nswap = "1M"', "memory.swap"),
        (BASE + 'memory = "1M"', "memory"),
    ],
    ids=lambda value: value.removeprefix(BASE)[:40] if isinstance(value, str) else None,
)
def test_mistakes_are_named(text: str, mentions: str) -> None:
    with pytest.raises(BuildError, match=mentions) as caught:
        parse_project(text)
    assert "cafe.toml" in caught.value.detail


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(BuildError) as caught:
        parse_project(BASE.replace('"app"', '"App"') + "deadline_ms = 0\nisa = 3")
    assert caught.value.detail.count("\n") == 2


@pytest.mark.parametrize(
    ("value", "size"),
    [(1, 4096), (4096, 4096), (4097, 8192), ("64K", 65536), ("1M", 1 << 20), ("2 GiB", 2 << 30), ("5", 4096)],
)
def test_sizes(value: object, size: int) -> None:
    assert parse_size(value) == size


@given(st.text(max_size=100))
def test_any_text_gives_a_project_or_a_build_error(text: str) -> None:
    with pytest.raises(BuildError):
        parse_project(text)


def write(root: Path, text: str = BASE) -> Path:
    (root / "cafe.toml").write_text(text)
    for name in ("a.c", "b.c", "a.h"):
        (root / name).write_text("")
    return root


def test_files_are_found_in_a_stable_order(tmp_path: Path) -> None:
    project = load_project(write(tmp_path, BASE.replace('["a.c"]', '["b.c", "*.c"]')))
    assert [str(path) for path in project.sources] == ["b.c", "a.c"]
    assert (project.language, project.needs_cxx) == ("c", False)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(BASE.replace('["a.c"]', '["c.c"]'), id="missing source"),
        pytest.param(BASE.replace('["a.c"]', '["a.h"]'), id="a header as a source"),
        pytest.param(BASE.replace('["a.c"]', '["/etc/passwd"]'), id="absolute source"),
        pytest.param(BASE.replace('["a.c"]', '["../a.c"]'), id="source outside"),
        pytest.param(BASE.replace('["a.c"]', '["**a/[z"]'), id="no pattern"),
        pytest.param(BASE.replace('["a.h"]', '["b.h"]'), id="missing header"),
        pytest.param(BASE + 'include_dirs = ["inc"]', id="missing include directory"),
    ],
)
def test_missing_files_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"cafe\.toml"):
        load_project(write(tmp_path, text))


def test_unusable_project_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="No such file"):
        load_project(tmp_path)
    (tmp_path / "cafe.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BuildError, match="UTF-8"):
        load_project(tmp_path)
    (tmp_path / "cafe.toml").write_bytes(b"#" * 300_000)
    with pytest.raises(BuildError, match="longer"):
        load_project(tmp_path)


def test_an_identity_is_private_and_is_read_back(tmp_path: Path) -> None:
    made = create_publisher(tmp_path / "publisher")
    read = load_publisher(tmp_path / "publisher")
    assert (read.id, read.secret) == (made.id, made.secret)
    for name in (KEY_FILE, SECRET_FILE):
        assert stat.S_IMODE((tmp_path / "publisher" / name).stat().st_mode) == 0o600
    assert made.secret.hex() not in repr(made)
    with pytest.raises(ConflictError):
        create_publisher(tmp_path / "publisher")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (SECRET_FILE, bytes(31)),
        (SECRET_FILE, b""),
        (KEY_FILE, b""),
        (KEY_FILE, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
    ],
    ids=["short secret", "no secret", "no key", "no PEM"],
)
def test_a_damaged_identity_is_refused(name: str, data: bytes, tmp_path: Path) -> None:
    create_publisher(tmp_path)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BuildError):
        load_publisher(tmp_path)


def test_an_identity_that_others_can_read_is_refused(tmp_path: Path) -> None:
    create_publisher(tmp_path)
    (tmp_path / SECRET_FILE).chmod(0o644)
    with pytest.raises(BuildError, match="read by others"):
        load_publisher(tmp_path)


def test_a_missing_identity_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        load_publisher(tmp_path / "none")
    assert "cafe publisher init" in caught.value.hint
