"""The record stream from the SBS, and the one record to it.

Stream: `"CAFESTR1" || grant nonce (32)`, then records 0, 1, 2, ... : GRANT, CHUNK..., END.
Record: `u8 type || u64 number || u32 length || body || HMAC-SHA-256(type .. body)`, integers big-endian.
GRANT and DEPLOY are AES-256-CTR under the record's number (96 bits) and a 32-bit block counter, then MACed.
CHUNK carries the stored ciphertext as it is. END: `u64 count || HMAC-SHA-256(all MACs of the records before
it)`.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from cafe_lib.errors import LimitError, MalformedError, SessionError, SignatureError
from cafe_lib.wire import limits
from cafe_lib.wire.keys import SessionKeys, StreamContext, StreamKeys

MAGIC: Final = b"CAFESTR1"
GRANT: Final = 1
CHUNK: Final = 2
END: Final = 3
DEPLOY: Final = 4

MAC_BYTES: Final = 32
_HEADER: Final = struct.Struct(">BQI")
_END: Final = struct.Struct(">Q32s")
_START_BYTES: Final = len(MAGIC) + limits.NONCE_BYTES
_LARGEST: Final = {GRANT: limits.MAX_GRANT_BYTES, CHUNK: limits.CHUNK_BYTES, END: _END.size}
_MAX_NUMBER: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Record:
    """A verified record. A CHUNK's body is valid only until the reader is advanced: use it at once."""

    type: int
    number: int
    body: bytes | memoryview


def _crypt(key: bytes, number: int, data: bytes) -> bytes:
    """AES-256-CTR, the same both ways; a number is never used twice under a key."""
    cipher = Cipher(AES(key), CTR(number.to_bytes(12, "big") + bytes(4))).encryptor()
    return cipher.update(data) + cipher.finalize()


class RecordWriter:
    """Writes one stream: `begin`, `grant`, `chunk` for each chunk in order, `end`."""

    def __init__(self, keys: StreamKeys) -> None:
        self._keys = keys
        self._mac = hmac.new(keys.record_mac, digestmod=hashlib.sha256)
        self._tags = hmac.new(keys.end_mac, digestmod=hashlib.sha256)
        self._number = 0

    def begin(self) -> bytes:
        """Return the start of the stream."""
        return MAGIC + self._keys.grant_nonce

    def grant(self, body: bytes) -> bytes:
        """Return the GRANT record; `body` is an encoded Grant."""
        if self._number != 0:
            raise SessionError("the grant is the first record")
        sealed = _crypt(self._keys.grant_enc, 0, body)
        header, tag = self._seal(GRANT, sealed)
        return header + sealed + tag

    def chunk(self, ciphertext: bytes | memoryview) -> tuple[bytes, bytes]:
        """Return (header, tag): send header, ciphertext, tag. The ciphertext is not copied."""
        if self._number == 0:
            raise SessionError("the grant comes before the chunks")
        return self._seal(CHUNK, ciphertext)

    def end(self) -> bytes:
        """Return the END record."""
        body = _END.pack(self._number, self._tags.digest())
        header, tag = self._seal(END, body)
        return header + body + tag

    def _seal(self, kind: int, body: bytes | memoryview) -> tuple[bytes, bytes]:
        if not 0 < len(body) <= _LARGEST[kind]:
            raise LimitError(f"a record body of {len(body)} bytes")
        header = _HEADER.pack(kind, self._number, len(body))
        mac = self._mac.copy()
        mac.update(header)
        mac.update(body)
        tag = mac.digest()
        self._tags.update(tag)
        self._number += 1
        return header, tag


class RecordReader:
    """Verifies one stream, fed in pieces of any size. Strict order; after any error it is of no more use.

    A record that lies whole in a piece of `bytes` is verified in place; one in anything that might still
    change, be it seen through a read-only view, is copied first. A record that is cut is put together in a
    private buffer that grows with what has arrived, never with what a header claims.
    """

    def __init__(self, context: StreamContext) -> None:
        self._context = context
        self._keys: StreamKeys | None = None
        self._buffer = bytearray(_HEADER.size + limits.CHUNK_BYTES + MAC_BYTES)
        self._filled = 0
        self._number = 0
        self._state = "open"

    @property
    def ended(self) -> bool:
        """True once the END record has been verified."""
        return self._state == "ended"

    def feed(self, data: bytes | memoryview) -> Iterator[Record]:
        """Yield each record completed by `data`; exhaust the iterator before feeding again.

        Raises MalformedError, LimitError, SignatureError (MAC) or SessionError (used after an error).
        """
        if self._state == "failed":
            raise SessionError("the stream has failed before")
        view = memoryview(data)
        state, self._state = self._state, "failed"
        position = 0
        while position < len(view):
            if state == "ended":
                raise MalformedError("bytes after the end of the stream")
            piece, position = self._piece(view, position)
            if piece is None:
                break
            if self._keys is None:
                self._start(bytes(piece))
                continue
            record = self._verify(self._keys, piece)
            if record.type == END:
                state = "ended"
            yield record
        self._state = state

    def finish(self) -> None:
        """Say that there is no more; raises MalformedError unless END has been verified."""
        if self._state != "ended":
            self._state = "failed"
            raise MalformedError("the stream is cut short")

    def _piece(self, view: memoryview, position: int) -> tuple[memoryview | None, int]:
        """Return the next whole unit, in place if possible, and the position after what was consumed."""
        fixed = isinstance(view.obj, bytes)
        while True:
            need, whole = self._needed(view, position)
            if whole and not self._filled and len(view) - position >= need:
                piece = view[position : position + need]
                return piece if fixed else memoryview(bytes(piece)), position + need
            take = min(need - self._filled, len(view) - position)
            self._keep(view[position : position + take], need)
            position += take
            if self._filled < need:
                return None, position
            if whole:
                self._filled = 0
                return memoryview(self._buffer)[:need], position

    def _needed(self, view: memoryview, position: int) -> tuple[int, bool]:
        """Return the bytes of the current unit, and True; or of its header, and False, while cut."""
        if self._keys is None:
            return _START_BYTES, True
        if self._filled >= _HEADER.size:
            return self._measure(self._buffer, 0), True
        if not self._filled and len(view) - position >= _HEADER.size:
            return self._measure(view, position), True
        return _HEADER.size, False

    def _measure(self, data: bytearray | memoryview, position: int) -> int:
        """Check a header that is not verified yet: the only record that may come here, and its bound."""
        kind, number, length = _HEADER.unpack_from(data, position)
        allowed = (GRANT,) if self._number == 0 else (CHUNK, END)
        if kind not in allowed or number != self._number:
            raise MalformedError("a record out of order, or of an unknown type")
        if kind == CHUNK and number > limits.MAX_CHUNKS:
            raise LimitError("more chunks than a release may have")
        if not 0 < length <= _LARGEST[kind]:
            raise LimitError(f"a record body of {length} bytes")
        return int(_HEADER.size + length + MAC_BYTES)

    def _keep(self, piece: memoryview, need: int) -> None:
        end = self._filled + len(piece)
        if end > len(self._buffer):
            # a new buffer, not a longer one: the views handed out keep the old one alive
            larger = bytearray(min(need, max(end, 2 * len(self._buffer))))
            larger[: self._filled] = memoryview(self._buffer)[: self._filled]
            self._buffer = larger
        self._buffer[self._filled : end] = piece
        self._filled = end

    def _start(self, start: bytes) -> None:
        if not start.startswith(MAGIC):
            raise MalformedError("not a record stream")
        self._keys = self._context.keys(start[len(MAGIC) :])
        self._mac = hmac.new(self._keys.record_mac, digestmod=hashlib.sha256)
        self._tags = hmac.new(self._keys.end_mac, digestmod=hashlib.sha256)

    def _verify(self, keys: StreamKeys, piece: memoryview) -> Record:
        if self._measure(piece, 0) != len(piece):
            raise MalformedError("a record that changed while it was read")
        mac = self._mac.copy()
        mac.update(piece[:-MAC_BYTES])
        tag = mac.digest()
        if not hmac.compare_digest(tag, piece[-MAC_BYTES:]):
            raise SignatureError(f"record {self._number}: the MAC does not verify")
        kind, number, _ = _HEADER.unpack_from(piece)
        body: bytes | memoryview = piece[_HEADER.size : -MAC_BYTES]
        if kind == GRANT:
            body = _crypt(keys.grant_enc, number, bytes(body))
        elif kind == END:
            body = bytes(body)
            self._verify_end(body)
        self._tags.update(tag)
        self._number += 1
        return Record(kind, number, body)

    def _verify_end(self, body: bytes) -> None:
        if len(body) != _END.size:
            raise MalformedError("an END record of the wrong length")
        count, digest = _END.unpack(body)
        if count != self._number or not hmac.compare_digest(digest, self._tags.digest()):
            raise SignatureError("the END record is not of these records")


def encrypt_record(keys: SessionKeys, number: int, body: bytes) -> bytes:
    """Return a DEPLOY record; `number` counts the records of the session and is never used twice."""
    if not 0 <= number <= _MAX_NUMBER or not 0 < len(body) <= limits.MAX_MESSAGE_BYTES:
        raise LimitError("a record number or body out of bounds")
    sealed = _crypt(keys.client_record_enc, number, body)
    covered = _HEADER.pack(DEPLOY, number, len(sealed)) + sealed
    return covered + hmac.digest(keys.client_record_mac, covered, "sha256")


def decrypt_record(keys: SessionKeys, data: bytes) -> tuple[int, bytes]:
    """Return (number, body) of a DEPLOY record; raises MalformedError, LimitError or SignatureError.

    The caller sees to it that a number it has seen before comes with the same record again, or not at all.
    """
    if len(data) > _HEADER.size + limits.MAX_MESSAGE_BYTES + MAC_BYTES:
        raise LimitError(f"a record of {len(data)} bytes")
    if len(data) <= _HEADER.size + MAC_BYTES:
        raise MalformedError("a record is cut short")
    kind, number, length = _HEADER.unpack_from(data)
    if kind != DEPLOY or length != len(data) - _HEADER.size - MAC_BYTES:
        raise MalformedError("not one DEPLOY record")
    tag = hmac.digest(keys.client_record_mac, data[:-MAC_BYTES], "sha256")
    if not hmac.compare_digest(tag, data[-MAC_BYTES:]):
        raise SignatureError("the record's MAC does not verify")
    return number, _crypt(keys.client_record_enc, number, data[_HEADER.size : -MAC_BYTES])
