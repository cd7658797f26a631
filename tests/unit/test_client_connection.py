"""The client's way to speak HTTP: addresses, bounds, time limits, foreign errors."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from cafe_lib.client.connection import Call, Connection, Timeouts, parse_address
from cafe_lib.client.host import HostCalls
from cafe_lib.errors import (
    CafeError,
    LicenceError,
    LimitError,
    MalformedError,
    ProtocolError,
    SessionError,
    TransportError,
)

URL = "http://127.0.0.1:1"
SESSION = bytes(range(16))


def _answer(status: int, body: bytes = b"", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=named, stream=httpx.ByteStream(body))


def _client(handler: Callable[[httpx.Request], httpx.Response], key: str | None = None) -> HostCalls:
    return HostCalls(URL, key, transport=httpx.MockTransport(handler))


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("http://sbs.example", id="plain-http"),
        pytest.param("http://localhost.example", id="looks-like-localhost"),
        pytest.param("http://127.0.0.1.example", id="looks-like-loopback"),
        pytest.param("http://10.0.0.1:8000", id="plain-http-to-an-address"),
        pytest.param("http://[fe80::1]", id="plain-http-to-ipv6"),
        pytest.param("http://0.0.0.0", id="any-address"),
        pytest.param("ftp://127.0.0.1", id="other-scheme"),
        pytest.param("127.0.0.1:8000", id="no-scheme"),
        pytest.param("https://", id="no-host"),
        pytest.param("https://user:word@sbs.example", id="password-in-the-address"),
        pytest.param("https://sbs.example/?a=b", id="query"),
        pytest.param("https://sbs.example:99999", id="port-too-big"),
        pytest.param("", id="empty"),
        pytest.param("https://sbs.example/\x00", id="control-character"),
    ],
)
def test_address_refused(address: str) -> None:
    with pytest.raises(MalformedError):
        parse_address(address)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:8000", "http://localhost", "http://[::1]:8000", "https://sbs.example/base"]
)
def test_address_accepted(address: str) -> None:
    assert parse_address(address).host in address


@pytest.mark.parametrize("key", ["a b", "a\r\nx: y", "schlüssel", "\x7f"])
def test_api_key_cannot_break_out_of_its_header(key: str) -> None:
    with pytest.raises(MalformedError):
        Connection(URL, key)


def test_ca_file_that_holds_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(MalformedError):
        Connection("https://sbs.example", ca_file=tmp_path / "ca.pem")


def test_paths_media_types_and_bodies() -> None:
    seen: list[tuple[str, str, str, bytes]] = []
    accepted: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        kind = request.headers["content-type"]
        seen.append((request.method, request.url.path, kind, request.content))
        accepted.append(request.headers["accept"].split(",")[0])
        return _answer(200, b"answer")

    hexed = SESSION.hex()
    with _client(answer) as client:
        assert client.enrol(b"1") == b"answer"
        client.activate(SESSION, b"2")
        client.open_session(b"3")
        client.send_evidence(SESSION, b"4")
        client.renewal_challenge(SESSION, b"5")
        client.renew(SESSION, b"6")
        client.end_lease(SESSION, b"7")
        with client.deploy(SESSION, b"8") as stream:
            assert b"".join(stream) == b"answer"
        with client.events(SESSION, b"9") as stream:
            assert b"".join(stream) == b"answer"
    assert [(path, body) for _, path, _, body in seen] == [
        ("/v1/enrolments", b"1"),
        (f"/v1/enrolments/{hexed}/activation", b"2"),
        ("/v1/sessions", b"3"),
        (f"/v1/sessions/{hexed}/evidence", b"4"),
        (f"/v1/sessions/{hexed}/renewal-challenges", b"5"),
        (f"/v1/sessions/{hexed}/renewals", b"6"),
        (f"/v1/sessions/{hexed}/lease-ends", b"7"),
        (f"/v1/sessions/{hexed}/deployments", b"8"),
        (f"/v1/sessions/{hexed}/events", b"9"),
    ]
    assert {method for method, *_ in seen} == {"POST"}
    assert accepted == ["application/cbor"] * 7 + ["application/octet-stream"] * 2


def test_the_key_is_sent_and_never_shown() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        raise httpx.ConnectError("refused")

    with _client(answer, "cafe_id_secret") as client, pytest.raises(TransportError) as caught:
        client.enrol(b"")
    assert seen == ["Bearer cafe_id_secret"]
    assert "secret" not in f"{caught.value} {client!r} {vars(client)}"


def test_refusal_becomes_its_error_in_answers_and_streams() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return _answer(409, b'{"code": "licence", "title": "No seat."}')

    with _client(answer) as client:
        with pytest.raises(LicenceError, match="No seat"):
            client.open_session(b"")
        with pytest.raises(LicenceError), client.deploy(SESSION, b""):
            pass


@pytest.mark.parametrize(
    ("response", "error"),
    [
        pytest.param(_answer(200, bytes(65537)), LimitError, id="answer-too-long"),
        pytest.param(_answer(500, bytes(65537)), LimitError, id="refusal-too-long"),
        pytest.param(
            _answer(200, b"bomb", content_encoding="gzip"),
            ProtocolError,
            id="compressed",
        ),
        pytest.param(_answer(307, location="/x"), ProtocolError, id="redirect"),
        pytest.param(_answer(502, b"<html>"), TransportError, id="bad-gateway"),
    ],
)
def test_bad_answers(response: httpx.Response, error: type[CafeError]) -> None:
    with _client(lambda _: response) as client, pytest.raises(error):
        client.enrol(b"")


def test_a_stream_over_its_bound_is_cut() -> None:
    with (
        _client(lambda _: _answer(200, bytes(11))) as client,
        client.stream(Call("POST", "/v1/x", 10)) as pieces,
        pytest.raises(LimitError),
    ):
        list(pieces)


def test_the_callers_own_error_passes_through_a_stream() -> None:
    with (
        _client(lambda _: _answer(200, b"x")) as client,
        pytest.raises(SessionError, match="mine"),
        client.deploy(SESSION, b""),
    ):
        raise SessionError("mine")


@contextmanager
def _peer(act: Callable[[socket.socket], None]) -> Iterator[str]:
    """One TCP connection on loopback, served by ``act`` in a thread."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(5)
            connection.recv(65536)
            act(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        thread.join(10)
        listener.close()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"


def _drip(connection: socket.socket) -> None:
    connection.sendall(HEAD)
    for _ in range(20):
        time.sleep(0.05)
        try:
            connection.sendall(b"x")
        except OSError:
            return


def _silent(connection: socket.socket) -> None:
    connection.recv(1)


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(_drip, id="a-byte-now-and-then"),
        pytest.param(_silent, id="silence"),
        pytest.param(lambda connection: connection.sendall(HEAD + b"short"), id="cut-short"),
        pytest.param(lambda connection: connection.sendall(b"SSH-2.0-x\r\n"), id="not-http"),
        pytest.param(lambda connection: connection.close(), id="hangs-up"),
    ],
)
def test_a_bad_peer_ends_in_transport_error_in_time(act: Callable[[socket.socket], None]) -> None:
    started = time.monotonic()
    with _peer(act) as url, Connection(url, timeouts=Timeouts(answer=0.3)) as client:
        with pytest.raises(TransportError):
            client.ask(Call("GET", "/healthz", 10_000))
        assert time.monotonic() - started < 3


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Connection(f"http://127.0.0.1:{port}") as client, pytest.raises(TransportError):
        client.ask(Call("GET", "/healthz", 10))


def test_a_proxy_from_the_environment_does_not_see_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    reply = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    with _peer(lambda connection: connection.sendall(reply)) as url, Connection(url) as client:
        assert client.ask(Call("GET", "/healthz", 10)) == b"ok"


def test_events_arrive_as_they_are_sent() -> None:
    def act(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"event")
        connection.recv(1)

    with _peer(act) as url, HostCalls(url, timeouts=Timeouts(stream=2.0)) as client:
        started = time.monotonic()
        with client.events(SESSION, b"") as pieces:
            assert next(pieces) == b"event"
            assert time.monotonic() - started < 1


def test_a_closed_client_ends_its_streams_within_their_silence() -> None:
    def act(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"x")
        connection.recv(1)

    errors: list[CafeError] = []
    with _peer(act) as url:
        client = HostCalls(url, timeouts=Timeouts(stream=1.0))

        def read() -> None:
            try:
                with client.events(SESSION, b"") as pieces:
                    list(pieces)
            except CafeError as error:
                errors.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        time.sleep(0.2)
        client.close()
        thread.join(5)
    assert [error.code for error in errors] == ["transport"]
