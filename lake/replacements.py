"""Which objects stand for a range: the ones it landed as, or those a redaction replaced them with.

A manifest stays what it was; a numbered pointer, create-only, names the objects
in force after a redaction. Whoever reads landed files asks here. Writing
replacements and deleting originals is `governance.erasure.purge`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from lake import layout
from lake.landing import Manifest
from lake.layout import RangeKey
from lake.store import ObjectStore


class StoredObject(msgspec.Struct, frozen=True):
    """One object of a range: key, hash of its content, rows in it, its size."""

    key: str
    sha256: str
    rows: int
    bytes: int


class Replacement(msgspec.Struct, frozen=True, kw_only=True):
    """The objects of a range since its `number`-th redaction, and those they stand for.

    `before` and `after` are the main object, `rejects_before` and `rejects_after`
    the dead letters; a pair that is equal was not touched. `redacted_rows` left
    with this step, `kept` hold those of them that were put aside because they have to
    stay, `cleared_payloads` are dead letters that lost their payload.
    `redaction_ids` is the whole ledger that was honoured.
    """

    stream_id: str
    partition: int
    start: int
    end: int
    number: int
    feed: str
    redaction_ids: tuple[str, ...]
    replaced_at: datetime
    before: StoredObject
    after: StoredObject
    redacted_rows: int
    rejects_before: StoredObject | None = None
    rejects_after: StoredObject | None = None
    cleared_payloads: int = 0
    kept: list[StoredObject] = []

    @property
    def range_key(self) -> RangeKey:
        return self.stream_id, self.partition, self.start

    def superseded(self) -> list[StoredObject]:
        """The objects that must not be there any more."""
        pairs = ((self.before, self.after), (self.rejects_before, self.rejects_after))
        return [old for old, new in pairs if old is not None and old != new]


@dataclass(frozen=True)
class Replacements:
    """Every pointer by range, in the order of their numbers."""

    by_range: dict[RangeKey, list[Replacement]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Replacement]:
        return (pointer for pointers in self.by_range.values() for pointer in pointers)

    def latest(self, range_key: RangeKey) -> Replacement | None:
        """The pointer in force; None for a range that nobody redacted."""
        pointers = self.by_range.get(range_key)
        return pointers[-1] if pointers else None

    def stored_object_of(self, manifest: Manifest) -> StoredObject:
        """The object that holds a range's rows now, with its own hash and number of rows."""
        latest = self.latest(manifest.range_key)
        if latest is not None:
            return latest.after
        return StoredObject(manifest.source_file, manifest.sha256, manifest.rows, manifest.bytes)

    def main_object_of(self, manifest: Manifest) -> str:
        """Key of the object that holds a range's rows now."""
        return self.stored_object_of(manifest).key

    def reject_object_of(self, manifest: Manifest) -> str | None:
        """Key of the object that holds a range's dead letters now; None for a range without.

        Dead letters past their retention are deleted: the object may be gone.
        """
        for pointer in reversed(self.by_range.get(manifest.range_key, [])):
            if pointer.rejects_after is not None:
                return pointer.rejects_after.key
        return manifest.reject_object

    def with_rejects_in_force(self, manifest: Manifest) -> Manifest:
        """The manifest with the dead letters of now, for who reads them by it."""
        return msgspec.structs.replace(manifest, reject_object=self.reject_object_of(manifest))

    def next_number(self, range_key: RangeKey) -> int:
        """Number of the pointer that the range's next redaction has to put."""
        return len(self.by_range.get(range_key, ()))

    def superseded_keys(self) -> frozenset[str]:
        """Keys of every object that another one stands for."""
        return frozenset(old.key for pointer in self for old in pointer.superseded())


def load_replacements(store: ObjectStore) -> Replacements:
    """Every pointer of the lake: one listing, and one read for each range that was redacted."""
    keys = [info.key for info in store.list(layout.REPLACEMENTS)]
    decoder = msgspec.json.Decoder(Replacement)
    by_range: dict[RangeKey, list[Replacement]] = {}
    for data in store.get_many(keys):
        pointer = decoder.decode(data)
        by_range.setdefault(pointer.range_key, []).append(pointer)
    return Replacements(by_range)


def main_keys(store: ObjectStore, feed: str, replacements: Replacements) -> list[str]:
    """Keys of the objects that hold a feed's rows now; manifests are not read."""
    landed = [info.key for info in store.list(f"{layout.LANDING}{feed}/")]
    replaced = {
        pointers[0].before.key: pointers[-1].after.key
        for pointers in replacements.by_range.values()
        if pointers[0].feed == feed
    }
    return [*(key for key in landed if key not in replaced), *sorted(replaced.values())]
