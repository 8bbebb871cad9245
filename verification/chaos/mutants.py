"""Collectors with a deliberate mistake, to see that the harness finds it: each breaks one rule."""

import contextlib
import copy
from collections import deque
from collections.abc import Iterator

import msgspec

from ingestion.broker.client import Stream
from ingestion.collector import engine, recovery
from lake import layout
from lake.store import ObjectExistsError, ObjectInfo, ObjectMissingError, ObjectStore, S3Store


class Overwriting(S3Store):
    """Puts without `If-None-Match`: the last writer wins."""

    def put_new(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data)


class Trusting(S3Store):
    """Takes 412 for "my object is there" and never reads back whose it is."""

    def put_new(self, key: str, data: bytes) -> None:
        with contextlib.suppress(ObjectExistsError):
            super().put_new(key, data)


class EndInKey(S3Store):
    """Names claims by start and end, so that two workers with different ends both win."""

    def put_new(self, key: str, data: bytes) -> None:
        end = f"+{msgspec.json.decode(data)['end']:020}" if key.startswith(layout.CLAIMS) else ""
        super().put_new(key + end, data)

    def get(self, key: str) -> bytes:
        if not key.startswith(layout.CLAIMS):
            return super().get(key)
        found = next(super().list(f"{key}+"), None)
        if found is None:
            raise ObjectMissingError(key)
        return super().get(found.key)

    def list(self, prefix: str, start_after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        for info in super().list(prefix, start_after, limit):
            claim = info.key.startswith(layout.CLAIMS)
            plain = ObjectInfo(info.key.partition("+")[0], info.size) if claim else info
            if plain.key > start_after:
                yield plain


STORES: dict[str, type[S3Store]] = {
    "overwriting": Overwriting,
    "trusting": Trusting,
    "end-in-key": EndInKey,
}
CHAIN_AT_LOG_START = "chain-at-log-start"
BROKEN = (*STORES, CHAIN_AT_LOG_START)


def break_rule(name: str, store: ObjectStore) -> ObjectStore:
    """Break one rule in this process; the store to collect with. Raises KeyError for an unknown mistake."""
    if name == CHAIN_AT_LOG_START:
        engine.resume = _resume_at_log_start
        return store
    broken = copy.copy(store)
    broken.__class__ = STORES[name]
    return broken


def _resume_at_log_start(
    store: ObjectStore, stream: Stream, partition: int, low: int, high: int
) -> recovery.Resumption:
    """Begins a chain where the log does, so that workers who see different starts claim under different keys."""
    found = recovery.resume(store, stream, partition, low, high)
    return found if found.chain_end else recovery.Resumption(low, deque(), [])
