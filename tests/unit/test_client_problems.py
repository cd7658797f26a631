"""Any answer of the SBS becomes an error of the tree, and cannot steer a terminal."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cafe_lib import errors
from cafe_lib.client.problems import ERRORS_BY_CODE, MAX_DETAIL_CHARS, error_from_answer, printable


@pytest.mark.parametrize("code", sorted(set(ERRORS_BY_CODE) - {"error"}))
def test_each_code_gives_its_class(code: str) -> None:
    body = json.dumps({"type": "about:blank", "status": 409, "code": code, "title": "why"}).encode()
    error = error_from_answer(409, body)
    assert type(error) is ERRORS_BY_CODE[code]
    assert (error.code, error.detail) == (code, "why")


def test_the_whole_tree_is_known_and_codes_are_unique() -> None:
    classes = {kind for kind in vars(errors).values() if isinstance(kind, type)}
    assert set(ERRORS_BY_CODE.values()) == {kind for kind in classes if issubclass(kind, errors.CafeError)}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        pytest.param(502, b"<html>bad gateway</html>", errors.TransportError, id="proxy-page"),
        pytest.param(500, b'{"code": "error", "title": "x"}', errors.TransportError, id="internal-error"),
        pytest.param(429, b"", errors.BusyError, id="too-many-requests"),
        pytest.param(404, b"", errors.NotFoundError, id="not-found-without-body"),
        pytest.param(401, b"null", errors.UnauthenticatedError, id="null"),
        pytest.param(403, b"[1]", errors.ForbiddenError, id="list"),
        pytest.param(400, b'{"code": ["licence"]}', errors.ProtocolError, id="code-is-a-list"),
        pytest.param(400, b'{"code": "no-such-code"}', errors.ProtocolError, id="unknown-code"),
        pytest.param(302, b"", errors.ProtocolError, id="redirect"),
        pytest.param(400, b"[" * 60000, errors.ProtocolError, id="deep-nesting"),
        pytest.param(400, b'{"code": "licence"', errors.ProtocolError, id="cut-short"),
        pytest.param(400, b"\xff\xfe\x00", errors.ProtocolError, id="not-text"),
    ],
)
def test_bad_problem_documents(status: int, body: bytes, kind: type[errors.CafeError]) -> None:
    error = error_from_answer(status, body)
    assert type(error) is kind
    assert error.detail


def test_detail_is_cut_and_loses_what_a_terminal_obeys() -> None:
    title = "\x1b]0;title\x07" + "a" * 5000
    error = error_from_answer(403, json.dumps({"code": "forbidden", "title": title}).encode())
    assert error.detail.isprintable()
    assert len(error.detail) <= MAX_DETAIL_CHARS


def test_the_bad_members_are_named() -> None:
    body = {"code": "malformed", "title": "It could not be parsed.", "fields": ["seats", "a\x07b", 3]}
    error = error_from_answer(422, json.dumps(body).encode())
    assert error.detail == "It could not be parsed. Wrong: seats, a b, 3"


@given(st.text())
def test_printable_is_printable(text: str) -> None:
    assert printable(text).isprintable()


@given(st.integers(300, 599), st.binary(max_size=300))
def test_any_bytes_give_an_error(status: int, body: bytes) -> None:
    assert isinstance(error_from_answer(status, body), errors.CafeError)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(["code", "fields", "title", "status"]), _json))
def test_any_document_gives_an_error(document: dict[str, object]) -> None:
    assert isinstance(error_from_answer(400, json.dumps(document).encode()), errors.CafeError)
