"""Objects through obstore: a folder, or a bucket of S3 or what speaks like it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.exceptions import NotFoundError as ObjectNotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

from cafe_lib.errors import HostError, NotFoundError, TransportError


class ObstoreBlobs:
    """See the port `BlobStore`. Names are made by us from digests: none comes from outside."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def put(self, name: str, data: bytes) -> None:
        """See the port."""
        with _mapped(name):
            await obstore.put_async(self._store, name, data)

    async def put_new(self, name: str, data: bytes) -> None:
        """See the port."""
        with _mapped(name):
            try:
                await obstore.put_async(self._store, name, data, mode="create", use_multipart=False)
            except (AlreadyExistsError, FileExistsError):
                return

    async def get(self, name: str) -> bytes:
        """See the port."""
        with _mapped(name):
            result = await obstore.get_async(self._store, name)
            return bytes(await result.bytes_async())

    def get_many(self, names: tuple[str, ...]) -> list[memoryview]:
        """See the port."""
        found = []
        for name in names:
            with _mapped(name):
                found.append(memoryview(obstore.get(self._store, name).bytes()))
        return found


def open_blobs(location: str) -> ObstoreBlobs:
    """Open a folder (made if need be, for its owner only) or a URL such as s3://bucket/prefix.

    :raises HostError: it cannot be opened.
    """
    try:
        if "://" in location:
            return ObstoreBlobs(from_url(location))
        folder = Path(location)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return ObstoreBlobs(LocalStore(folder))
    except (BaseError, OSError, ValueError) as error:
        raise HostError(f"the object store cannot be opened: {type(error).__name__}") from error


@contextmanager
def _mapped(name: str) -> Iterator[None]:
    try:
        yield
    except (ObjectNotFoundError, FileNotFoundError) as error:
        raise NotFoundError(f"object {name} is missing") from error
    except (BaseError, OSError) as error:
        raise TransportError(f"the object store failed: {type(error).__name__}") from error
