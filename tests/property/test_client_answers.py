"""Whatever an SBS answers or a configuration file holds: a value or a typed error."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cafe_lib.cli.config import Flags, Target, load_target
from cafe_lib.client.people import parse_object, parse_page
from cafe_lib.client.sbs import SbsClient
from cafe_lib.errors import CafeError, MalformedError

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
documents = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
pages = st.fixed_dictionaries({}, optional={"items": documents, "next": documents})


@given(st.binary(max_size=400) | documents.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_an_object_or_malformed(body: bytes) -> None:
    with suppress(MalformedError):
        assert isinstance(parse_object(body), dict)


@given(pages)
def test_any_page_is_a_list_of_objects_or_malformed(page: dict[str, object]) -> None:
    with suppress(MalformedError):
        items, following = parse_page(json.dumps(page).encode())
        assert all(isinstance(item, dict) for item in items)
        assert following is None or isinstance(following, str)


@given(st.integers(200, 299), st.binary(max_size=400))
def test_any_answer_is_handed_on_as_it_came(status: int, body: bytes) -> None:
    answer = httpx.MockTransport(lambda _: httpx.Response(status, stream=httpx.ByteStream(body)))
    with SbsClient("http://127.0.0.1:1", transport=answer) as client:
        assert client.open_session(b"x") == body


@given(st.integers(300, 599), st.binary(max_size=400))
def test_any_refusal_is_a_typed_error(status: int, body: bytes) -> None:
    answer = httpx.MockTransport(lambda _: httpx.Response(status, stream=httpx.ByteStream(body)))
    with SbsClient("http://127.0.0.1:1", transport=answer) as client, pytest.raises(CafeError) as caught:
        client.open_session(b"x")
    assert caught.value.detail.isprintable()


@given(
    st.text(max_size=200)
    | st.dictionaries(st.sampled_from(["sbs", "api_key", "ca_file"]), st.text()).map(
        lambda values: "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())
    )
)
def test_any_configuration_is_a_target_or_a_typed_error(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        path.write_bytes(text.encode(errors="replace"))
        path.chmod(0o600)
        with suppress(CafeError):
            assert isinstance(load_target(Flags(), {"CAFE_CONFIG": str(path)}), Target)
