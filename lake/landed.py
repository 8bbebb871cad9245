"""Reading back what has landed: the columns of a range that redactions go by, for some devices only.

Works on the objects in force (`lake.replacements`). What a row's
presence means is decided elsewhere.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.registry import TELEMETRY_FEED
from lake.landing import Manifest
from lake.redactions import epoch_us, merged
from lake.replacements import Replacements
from lake.store import ObjectMissingError, ObjectStore

SCAN_THREADS = 8


def read_columns(
    store: ObjectStore, key: str, columns: Sequence[str], only: pc.Expression | None = None
) -> pa.Table:
    """Some columns of a stored Parquet object, of the rows that `only` admits; only what is needed is
    fetched. Raises ObjectMissingError."""
    filesystem, root = store.filesystem()
    try:
        return pq.read_table(
            f"{root}/{key}", columns=[*columns], filesystem=filesystem, partitioning=None, filters=only
        )
    except FileNotFoundError as error:
        raise ObjectMissingError(
            f"{key} is missing from {store.url}: a purge may just have replaced it; run again"
        ) from error


def scan(
    store: ObjectStore, keys: Iterable[str], columns: Sequence[str], only: pc.Expression | None = None
) -> Iterator[tuple[str, pa.Table]]:
    """`read_columns` of many objects, a few at a time, in the order of `keys`."""
    with ThreadPoolExecutor(SCAN_THREADS) as pool:
        for batch in batched(keys, 8 * SCAN_THREADS):
            tables = pool.map(lambda key: read_columns(store, key, columns, only), batch)
            yield from zip(batch, tables, strict=True)


def telemetry_columns(
    store: ObjectStore,
    manifests: Iterable[Manifest],
    replacements: Replacements,
    devices: Collection[str],
    more: Sequence[str] = (),
) -> Iterator[tuple[Manifest, pa.Table]]:
    """Rows of these devices in landed telemetry ranges: `device_id`, `arrival_ts` and `more` columns."""
    if not devices:
        return
    theirs = pc.field("device_id").isin([*devices])
    by_key = {replacements.main_object_of(m): m for m in manifests if m.feed == TELEMETRY_FEED and m.rows}
    for key, table in scan(store, by_key, ["device_id", "arrival_ts", *more], theirs):
        if table.num_rows:
            yield by_key[key], table


def received_within(manifest: Manifest, stretches: Iterable[tuple[int, int]]) -> bool:
    """Whether a range holds messages received around one of the stretches (epoch microseconds)."""
    return _touches(manifest.min_arrival_ts, manifest.max_arrival_ts, stretches)


def measured_within(manifest: Manifest, stretches: Iterable[tuple[int, int]]) -> bool:
    """Whether a range holds events measured around one of the stretches (epoch microseconds)."""
    return _touches(manifest.min_event_ts, manifest.max_event_ts, stretches)


def landed_stretches(
    moments_us: Iterable[int], stretches: Iterable[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Stretches that hold all of `moments_us`: each of `stretches` that has any, up to the last one in it,
    and what lies outside of them one by one."""
    within = merged(stretches)
    found = []
    left = sorted(set(moments_us))
    for low, high in within:
        inside = [moment for moment in left if low <= moment < high]
        if inside:
            found.append((low, inside[-1] + 1))
            left = [moment for moment in left if not low <= moment < high]
    return merged([*found, *((moment, moment + 1) for moment in left)])


def _touches(first: datetime | None, last: datetime | None, stretches: Iterable[tuple[int, int]]) -> bool:
    if first is None or last is None:
        return False
    low_us, high_us = epoch_us(first), epoch_us(last)
    return any(low <= high_us and low_us < high for low, high in stretches)


def batched(items: Iterable[str], size: int) -> Iterator[list[str]]:
    """Items in lists of at most `size`."""
    left = iter(items)
    while batch := [*islice(left, size)]:
        yield batch
