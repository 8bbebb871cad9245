"""Landed files that cannot become rows of `raw` as they are: gone, unreadable, of another schema, of other rows.

Looks into the lake, so that a refusal names the file and what is wrong with it in
the same words whatever a warehouse says. Only files that were refused are read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from lake.landing import Manifest, feed_schema
from lake.layout import RangeKey
from lake.replacements import Replacements
from lake.store import ObjectStore
from warehouse.gaps import Gap, Kind

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs as pa_fs

_RESTORE = "restore it from the lake's backup; the next load takes it up"
FILE_GONE = Kind("file gone", "deleted before it was loaded", _RESTORE)
FILE_BROKEN = Kind("file broken", "cannot be read as Parquet", _RESTORE)
FILE_DRIFTED = Kind(
    "file drifted",
    "columns that are not the contract's",
    "find who wrote it besides the collector; change the contract first (docs/schema-evolution.md)",
)
FILE_DIFFERENT = Kind(
    "file different",
    "rows that are not its manifest's",
    "compare its sha256 with the manifest's, then restore it from the lake's backup",
)


class Counted(NamedTuple):
    """What a table holds of one landed file."""

    rows: int
    offsets: int
    first: int | None
    last: int | None


NOTHING = Counted(0, 0, None, None)


def holds(manifest: Manifest, rows: int, found: Counted) -> bool:
    """Whether a table holds `rows` rows of a range, each offset once and within the range."""
    if found.first is None or found.last is None:
        return found.rows == rows == 0
    is_once = found.rows == found.offsets == rows
    return is_once and manifest.start <= found.first and found.last < manifest.end


def rows_gap(manifest: Manifest, replacements: Replacements, found: Counted) -> Gap | None:
    """What a file's rows, as copied, lack or have beyond what is said of it; None when nothing."""
    stored = replacements.stored_object_of(manifest)
    if holds(manifest, stored.rows, found):
        return None
    detail = (
        f"its manifest says {stored.rows} rows in [{manifest.start}, {manifest.end}), it has {found.rows} with"
        f" {found.offsets} offsets in [{found.first}, {found.last}]"
    )
    return Gap(FILE_DIFFERENT, stored.key, abs(stored.rows - found.rows), detail)


def file_gaps(
    store: ObjectStore, feed: str, manifests: Iterable[Manifest], replacements: Replacements
) -> dict[RangeKey, Gap]:
    """Which of the ranges' files are gone, unreadable or of another schema; reads the footer of each."""
    gaps = {}
    filesystem, root = store.filesystem()
    for manifest in manifests:
        key = replacements.main_object_of(manifest)
        gap = _file_gap(filesystem, root, feed, key, manifest.rows)
        if gap is not None:
            gaps[manifest.range_key] = gap
    return gaps


def _file_gap(filesystem: pa_fs.FileSystem, root: str, feed: str, key: str, rows: int) -> Gap | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with filesystem.open_input_file(f"{root}/{key}") as file:
            found = pq.ParquetFile(file).schema_arrow
    except FileNotFoundError:
        return Gap(FILE_GONE, key, rows, f"{rows} rows of {feed}")
    except pa.ArrowInvalid as error:
        return Gap(FILE_BROKEN, key, rows, str(error).splitlines()[0])
    drift = schema_drift(found, feed_schema(feed))
    return Gap(FILE_DRIFTED, key, rows, "; ".join(drift)) if drift else None


def schema_drift(found: pa.Schema, expected: pa.Schema) -> list[str]:
    """How a file's columns differ from the contract's, in words. Lacking an optional one is no difference."""
    drift = []
    for column in expected:
        if column.name not in found.names:
            if not column.nullable:
                drift.append(f"required column '{column.name}' is missing")
        elif found.field(column.name).type != column.type:
            drift.append(f"column '{column.name}' is {found.field(column.name).type}, not {column.type}")
    unknown = [name for name in found.names if name not in expected.names]
    if drift and unknown:
        drift.append(f"columns nobody knows: {', '.join(unknown)}")
    return drift
