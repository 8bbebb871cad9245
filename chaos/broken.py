"""Collectors with a deliberate mistake, to see that the harness finds it: stores that break one rule each."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from ingestion.lake import layout
from ingestion.lake.store import ObjectExistsError, ObjectInfo, ObjectMissingError, ObjectStore, S3Store


class _Wrapped(ObjectStore):
    """Everything as the store behind does it."""

    def __init__(self, store: S3Store) -> None:
        self._store = store
        self.url = store.url

    def put_new(self, key: str, data: bytes) -> None:
        self._store.put_new(key, data)

    def get(self, key: str) -> bytes:
        return self._store.get(key)

    def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        return self._store.list(prefix, start_after, limit)

    def folders(self, prefix: str) -> tuple[str, ...]:
        return self._store.folders(prefix)

    def delete(self, key: str) -> None:
        self._store.delete(key)

    def uri(self, key: str) -> str:
        return self._store.uri(key)

    def filesystem(self) -> Any:
        return self._store.filesystem()

    def check(self) -> None:
        self._store.check()


class Overwriting(_Wrapped):
    """Puts without `If-None-Match`: the last writer wins."""

    def put_new(self, key: str, data: bytes) -> None:
        self._store._client.put_object(Bucket=self._store._bucket, Key=self._store._prefix + key, Body=data)


class Trusting(_Wrapped):
    """Takes 412 for "my object is there" and never reads back whose it is."""

    def put_new(self, key: str, data: bytes) -> None:
        with contextlib.suppress(ObjectExistsError):
            self._store.put_new(key, data)


class EndInKey(_Wrapped):
    """Names claims by start and end, so that two workers with different ends both win."""

    def put_new(self, key: str, data: bytes) -> None:
        end = f"+{msgspec.json.decode(data)['end']:020}" if key.startswith(layout.CLAIMS) else ""
        self._store.put_new(key + end, data)

    def get(self, key: str) -> bytes:
        if not key.startswith(layout.CLAIMS):
            return self._store.get(key)
        found = next(iter(self._store.list(f"{key}+")), None)
        if found is None:
            raise ObjectMissingError(key)
        return self._store.get(found.key)

    def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        for info in self._store.list(prefix, start_after, limit):
            claim = info.key.startswith(layout.CLAIMS)
            yield ObjectInfo(info.key.partition("+")[0], info.size) if claim else info


BROKEN: dict[str, Callable[[S3Store], ObjectStore]] = {
    "overwriting": Overwriting,
    "trusting": Trusting,
    "end-in-key": EndInKey,
}


def broken_store(name: str, store: ObjectStore) -> ObjectStore:
    """The store with one rule broken. Raises KeyError for an unknown mistake."""
    assert isinstance(store, S3Store)
    return BROKEN[name](store)
