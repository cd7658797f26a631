"""The one place where HTTP happens: addresses, time limits, bounded answers, foreign errors mapped."""

from __future__ import annotations

import ipaddress
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx

from cafe_lib.client.problems import MAX_PROBLEM_BYTES, error_from_answer
from cafe_lib.errors import LimitError, MalformedError, ProtocolError, TransportError

CBOR: Final = "application/cbor"
JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"
_REFUSED: Final = 300
_MAX_PORT: Final = 65535

Body = bytes | Iterator[bytes] | None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """All in seconds. ``answer`` bounds one whole short answer, ``stream`` the silence within a stream."""

    connect: float = 5.0
    answer: float = 30.0
    stream: float = 60.0


@dataclass(frozen=True, slots=True)
class Call:
    """One request. ``most_bytes`` bounds the answer's body.

    ``kind`` is the media type of both bodies, unless ``answer_kind`` says another for the answer.
    """

    method: str
    path: str
    most_bytes: int
    kind: str = JSON
    body: Body = None
    body_bytes: int | None = None
    query: Mapping[str, str | int] | None = None
    answer_kind: str | None = None

    def headers(self) -> dict[str, str]:
        """Return the request's headers; compression is refused, so that bounds mean what they say."""
        accept = f"{self.answer_kind or self.kind}, application/problem+json"
        headers = {"accept": accept, "accept-encoding": "identity"}
        if self.body is not None:
            headers["content-type"] = self.kind
        if self.body_bytes is not None:
            headers["content-length"] = str(self.body_bytes)
        return headers


def is_loopback(host: str) -> bool:
    """Whether a host name or address never leaves this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_address(text: str) -> httpx.URL:
    """Return the address of an SBS.

    :raises MalformedError: not an address, or plain HTTP to another machine, where the API key would leak.
    """
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, TypeError) as error:
        raise MalformedError("the address of the SBS is not a URL") from error
    extras = url.userinfo or url.query or url.fragment or not 0 < (url.port or 443) <= _MAX_PORT
    if url.scheme not in ("https", "http") or not url.host or extras:
        raise MalformedError(
            "the address of the SBS must look like https://HOST or https://HOST:PORT",
            hint="set CAFE_SBS_URL or --sbs",
        )
    if url.scheme == "http" and not is_loopback(url.host):
        raise MalformedError(
            f"plain HTTP to {url.host} is refused: anyone on the way could read the API key",
            hint="use https://; http:// is for loopback only",
        )
    return url


class Connection:
    """A pool of connections to one SBS; may be shared by threads."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeouts: Timeouts | None = None,
        ca_file: Path | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """``transport`` replaces the network; ``ca_file`` holds the CAs to trust instead of the system's.

        :raises MalformedError: an address that may not be used, or an API key that no header can carry.
        """
        url = parse_address(base_url)
        self.address = str(url)
        self._timeouts = timeouts or Timeouts()
        self._http = httpx.Client(
            base_url=url,
            headers=_credentials(api_key),
            timeout=httpx.Timeout(self._timeouts.answer, connect=self._timeouts.connect),
            verify=_trusted(ca_file) if url.scheme == "https" else False,
            transport=transport,
            # A proxy named in the environment must not see what is meant for loopback in the clear.
            trust_env=url.scheme == "https",
        )

    def close(self) -> None:
        """Close every connection; a stream in another thread ends with TransportError, within its silence."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, call: Call) -> bytes:
        """Send a request; return its whole answer.

        :raises TransportError: no answer in time.
        :raises LimitError: an answer over the bound.
        :raises CafeError: the refusal of the SBS, by its code.
        """
        deadline = time.monotonic() + self._timeouts.answer if isinstance(call.body, bytes | None) else None
        with self._open(call, self._timeouts.answer) as response:
            return _read(response, call.most_bytes, deadline)

    @contextmanager
    def stream(self, call: Call) -> Iterator[Iterator[bytes]]:
        """Send a request; give its answer in pieces of at most 64 KiB, as they come, undecoded."""
        with self._open(call, self._timeouts.stream) as response:
            yield _pieces(response, call.most_bytes)

    @contextmanager
    def _open(self, call: Call, silence: float) -> Iterator[httpx.Response]:
        with _mapped():
            request = self._http.build_request(
                call.method,
                call.path,
                content=call.body,
                params=call.query,
                headers=call.headers(),
                timeout=httpx.Timeout(silence, connect=self._timeouts.connect),
            )
            response = self._http.send(request, stream=True)
        try:
            if response.status_code >= _REFUSED:
                deadline = time.monotonic() + self._timeouts.answer
                raise error_from_answer(response.status_code, _read(response, MAX_PROBLEM_BYTES, deadline))
            if response.headers.get("content-encoding", "identity") != "identity":
                raise ProtocolError("the SBS compressed its answer, which was not asked for")
            yield response
        finally:
            response.close()


def _credentials(api_key: str | None) -> dict[str, str]:
    if api_key is None:
        return {}
    if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
        raise MalformedError("the API key has characters that no key has")
    return {"authorization": f"Bearer {api_key}"}


def _trusted(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise MalformedError(f"{ca_file} does not hold CA certificates") from error


def _pieces(response: httpx.Response, most_bytes: int) -> Iterator[bytes]:
    seen = 0
    with _mapped():
        for piece in response.iter_raw():  # as they come: with a size it would wait for that many bytes
            seen += len(piece)
            if seen > most_bytes:
                raise LimitError(f"the SBS answered with more than {most_bytes} bytes")
            yield piece


def _read(response: httpx.Response, most_bytes: int, deadline: float | None) -> bytes:
    body = bytearray()
    for piece in _pieces(response, most_bytes):
        body += piece
        if deadline is not None and time.monotonic() > deadline:
            raise TransportError("the SBS took too long to answer")
    return bytes(body)


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except httpx.TimeoutException as error:
        raise TransportError("the SBS did not answer in time") from error
    except (httpx.HTTPError, httpx.StreamError, ssl.SSLError, OSError) as error:
        raise TransportError(f"cannot talk to the SBS: {error}") from error
    except RuntimeError as error:  # httpx: the client was closed by another thread
        raise TransportError("the connection to the SBS was closed") from error
