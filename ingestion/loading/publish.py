"""The published copy: what analysts, dashboards and `petwellness query` read.

Immutable Parquet files and a small DuckDB file of views over them, replaced in
one rename at the end of a run, so that readers never meet a writer's lock and
never see half a run. Only tables and columns the caller names are published.
`published.json` names the files in force with a fingerprint of their content;
what has not changed is not written again, and of tables kept by day only the days
that were rebuilt are looked at.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from ingestion.loading.rebuilt import RebuiltDays, in_days

if TYPE_CHECKING:
    import duckdb

PUBLISHED_SCHEMAS = ("cur", "anl", "ml")
DATABASE_NAME = "petwellness.duckdb"
CATALOGUE_NAME = "published.json"

# As much as dbt may use before it; writing unsorted takes half.
MEMORY_LIMIT = "800MB"

# Rows that a thread holds of a day before it hands them to the file's writer. With DuckDB's half a million a day of
# 30 million rows of 22 columns ran out of 400 MB; it took 73 s with these, 60 s as one plain file.
ROWS_HELD = 65_536

# A day that fills more than one is written in the table's order, so that a reader of few pets skips most of them.
# Of 100 days of a thousand pets, the rows of four took 453 ms; 468 with 122,880 and 719 with 16,384 (more to look up).
ROW_GROUP_ROWS = 65_536

# Rows of a large day that are sorted at once, in the memory above. A day of 7.2 million took 16.7 s, as long as unsorted;
# four million at once in 400 MB took 29 s, all 29 million of a day did not end in six minutes.
SORTED_ROWS = 2_000_000
# Rows from which the bounds of its files are estimated.
SAMPLE_ROWS = 100_000

# Of `(select ...) as content`: rows, and a sum of hashes that no order and no layout changes.
ROWS_AND_HASH = "count(*), coalesce(sum(hash(content)), 0)::varchar"

PARQUET = "format parquet, compression zstd"

# The part of a table that is not kept by day, and of one without rows.
WHOLE = "all"


class Part(TypedDict):
    """One day of a table (or all of it): its files relative to the folder, its content's fingerprint."""

    files: list[str]
    fingerprint: str


Catalogue = dict[str, dict[str, Part]]


@dataclass(frozen=True)
class PublishedTable:
    """One table to publish: its columns for readers, its day column when kept by day, and what orders a day's rows."""

    schema: str
    name: str
    columns: tuple[str, ...]
    day_column: str | None = None
    sorted_by: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def select(self) -> str:
        columns = ", ".join(f'"{column}"' for column in self.columns)
        return f'select {columns} from "{self.schema}"."{self.name}"'


@dataclass(frozen=True)
class PublishReport:
    """What a publication did: the version in force, its tables and files, what was written anew."""

    version: int
    tables: int
    files: int
    files_written: int
    days_changed: int

    @property
    def changed(self) -> bool:
        return self.days_changed > 0


def publish(
    con: duckdb.DuckDBPyConnection,
    folder: Path,
    tables: Iterable[PublishedTable],
    progress: Callable[[str], None] = lambda _: None,
    rebuilt: RebuiltDays | None = None,
) -> PublishReport:
    """Write what changed of `tables` as Parquet under `folder` and switch readers to it.

    Tables that are not mentioned stay as they are. When nothing changed nothing
    is written and the version stays. `rebuilt` names the days of tables kept by day
    that may have changed since the last publication; without it every day may have.
    """
    con.execute(f"set memory_limit = '{MEMORY_LIMIT}'")
    con.execute(f"set partitioned_write_flush_threshold = {ROWS_HELD}")
    folder.mkdir(parents=True, exist_ok=True)
    before = read_catalogue(folder)
    previous: Catalogue = before.get("tables", {})
    version = _next_version(folder, before.get("version", 0))
    catalogue = dict(previous)
    files_written = days_changed = 0
    for table in tables:
        old = previous.get(table.full_name, {})
        fingerprints = _fingerprints(con, table, old, rebuilt)
        changed = sorted(part for part, value in fingerprints.items() if _fingerprint(old, part) != value)
        rows = {part: _row_count(fingerprints[part]) for part in changed}
        written = _export(con, folder, table, version, rows) if changed else {}
        catalogue[table.full_name] = {
            part: Part(files=written[part], fingerprint=value) if part in written else old[part]
            for part, value in sorted(fingerprints.items())
        }
        files_written += sum(len(files) for files in written.values())
        days_changed += len(changed) + len(old.keys() - fingerprints.keys())
        if changed:
            progress(f"published {table.full_name}: {len(changed)} part{'s' if len(changed) != 1 else ''}")
    if days_changed:
        _switch(folder, catalogue, version)
        # Readers may still hold the database of the version before this one.
        _remove_unreferenced(folder, [catalogue, previous])
    files = sum(len(part["files"]) for parts in catalogue.values() for part in parts.values())
    in_force = version if days_changed else before.get("version", 0)
    return PublishReport(in_force, len(catalogue), files, files_written, days_changed)


def read_catalogue(folder: Path) -> dict:
    """The catalogue in force: `version` and `tables` (table -> part -> Part); {} when none."""
    path = folder / CATALOGUE_NAME
    return json.loads(path.read_text()) if path.exists() else {}


def files_in_force(folder: Path) -> frozenset[Path]:
    """The files that readers of the newest version see."""
    return frozenset(
        folder / file
        for parts in read_catalogue(folder).get("tables", {}).values()
        for part in parts.values()
        for file in part["files"]
    )


def files_out_of_force(folder: Path, before: datetime) -> list[Path]:
    """Files of older versions that were written before a moment (naive UTC)."""
    in_force = files_in_force(folder)
    limit = before.replace(tzinfo=UTC).timestamp()
    return sorted(
        path
        for path in (folder / "tables").rglob("*.parquet")
        if path not in in_force and path.stat().st_mtime < limit
    )


def retire(files: Iterable[Path]) -> None:
    """Delete files out of force at once. For erasure: who reads an older version has to connect again."""
    for path in files:
        path.unlink(missing_ok=True)


def _next_version(folder: Path, in_force: int) -> int:
    """A number no folder has: a publication that died may have switched readers to its files."""
    used = [int(path.name[1:]) for path in (folder / "tables").glob("*/v*")]
    return max([in_force, *used]) + 1


def _fingerprint(parts: dict[str, Part], part: str) -> str | None:
    return parts[part]["fingerprint"] if part in parts else None


def _fingerprints(
    con: duckdb.DuckDBPyConnection,
    table: PublishedTable,
    old: dict[str, Part],
    rebuilt: RebuiltDays | None,
) -> dict[str, str]:
    """Fingerprint of each day's rows (of all rows for a table not kept by day), whatever their order: their number,
    their hash, the columns.

    Days that were not rebuilt keep the fingerprint they have.
    """
    day = f'cast("{table.day_column}" as varchar)' if table.day_column else f"'{WHOLE}'"
    shape = ",".join(table.columns)
    days = _days_to_look_at(table, old, shape, rebuilt)
    where = "true" if days is None else in_days(f'"{table.day_column}"', days)
    rows = con.execute(
        f"select {day} as part, {ROWS_AND_HASH} from ({table.select} where {where}) as content group by part"
    ).fetchall()
    found = {part: f"{count}-{total}-{shape}" for part, count, total in rows}
    if days is not None:
        looked_at = {WHOLE, *map(str, days)}
        found |= {part: one["fingerprint"] for part, one in old.items() if part not in looked_at}
    # A table without rows still needs one file, from which its view knows the columns.
    return found or {WHOLE: f"0-{shape}"}


def _row_count(fingerprint: str) -> int:
    return int(fingerprint.split("-", 1)[0])


def _days_to_look_at(
    table: PublishedTable, old: dict[str, Part], shape: str, rebuilt: RebuiltDays | None
) -> frozenset[date] | None:
    """Days that may differ from what is published; None for all of them."""
    has_shape = all(part["fingerprint"].endswith(f"-{shape}") for part in old.values())
    if table.day_column is None or rebuilt is None or not old or not has_shape:
        return None
    return rebuilt.get(table.full_name, frozenset())


def _export(
    con: duckdb.DuckDBPyConnection, folder: Path, table: PublishedTable, version: int, rows: Mapping[str, int]
) -> dict[str, list[str]]:
    """Write the parts of one table that `rows` counts; returns their files (relative to `folder`)."""
    relative = Path("tables") / table.full_name / f"v{version:06}"
    target = folder / relative
    target.mkdir(parents=True)
    if table.day_column is None or set(rows) == {WHOLE}:
        con.execute(f"copy ({table.select}) to '{target}/{WHOLE}.parquet' ({PARQUET})")
        return {WHOLE: [str(relative / f"{WHOLE}.parquet")]}
    large = [day for day, count in rows.items() if table.sorted_by and count > ROW_GROUP_ROWS]
    for day in large:
        _export_in_order(con, target, table, day, rows[day])
    if small := [f"date '{day}'" for day in rows if day not in large]:
        con.execute(
            f"copy ({table.select} where \"{table.day_column}\" in ({', '.join(small)})) to '{target}'"
            f" ({PARQUET}, partition_by ({table.day_column}), write_partition_columns true, overwrite_or_ignore true)"
        )
    files: dict[str, list[str]] = {}
    for path in sorted(target.rglob("*.parquet")):
        files.setdefault(path.parent.name.split("=", 1)[1], []).append(str(path.relative_to(folder)))
    return files


def _export_in_order(
    con: duckdb.DuckDBPyConnection, target: Path, table: PublishedTable, day: str, rows: int
) -> None:
    """Write one day of many rows in files that are sorted each, where the partitioned copy would write it."""
    path = target / f"{table.day_column}={day}"
    path.mkdir()
    whole = f"\"{table.day_column}\" = date '{day}'"
    order = ", ".join(f'"{column}"' for column in table.sorted_by)
    for number, slice_of in enumerate(_slices(con, table, whole, -(-rows // SORTED_ROWS))):
        con.execute(
            f"copy ({table.select} where {whole} and {slice_of} order by {order})"
            f" to '{path}/data_{number}.parquet' ({PARQUET}, row_group_size {ROW_GROUP_ROWS})"
        )


def _slices(con: duckdb.DuckDBPyConnection, table: PublishedTable, where: str, count: int) -> list[str]:
    """Conditions that divide rows into about equal parts, by the column that orders them last."""
    column = f'"{table.sorted_by[-1]}"'
    shares = [number / count for number in range(1, count)]
    if not shares:
        return ["true"]
    sample = (
        f'select {column} from "{table.schema}"."{table.name}" where {where} using sample {SAMPLE_ROWS} rows'
    )
    [(found,)] = con.execute(f"select quantile_disc({column}, {shares}) from ({sample})").fetchall()
    if not found:
        return ["true"]
    # As text, which gives any type back.
    bounds = [f"'{bound}'" for bound in sorted(set(found))]
    between = [f"{column} >= {first} and {column} < {last}" for first, last in pairwise(bounds)]
    return [f"({column} < {bounds[0]} or {column} is null)", *between, f"{column} >= {bounds[-1]}"]


def _switch(folder: Path, catalogue: Catalogue, version: int) -> None:
    """Build the database of views beside the one in force and rename it over; then the catalogue."""
    import duckdb

    # What a publication that died left behind, its write-ahead log included.
    for stale in (*folder.glob(f".{DATABASE_NAME}.*"), *folder.glob(f".{CATALOGUE_NAME}.*")):
        stale.unlink()
    fresh = folder / f".{DATABASE_NAME}.{version}"
    con = duckdb.connect(str(fresh))
    try:
        for schema in sorted({name.split(".")[0] for name in catalogue}):
            con.execute(f'create schema if not exists "{schema}"')
        for name, parts in catalogue.items():
            schema, table = name.split(".")
            paths = [str(folder / file) for part in parts.values() for file in part["files"]]
            listed = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
            con.execute(
                f'create view "{schema}"."{table}" as'
                f" select * from read_parquet([{listed}], hive_partitioning = false)"
            )
    finally:
        con.close()
    os.replace(fresh, folder / DATABASE_NAME)
    fresh_catalogue = folder / f".{CATALOGUE_NAME}.{version}"
    fresh_catalogue.write_text(json.dumps({"version": version, "tables": catalogue}, indent=1))
    os.replace(fresh_catalogue, folder / CATALOGUE_NAME)


def _remove_unreferenced(folder: Path, catalogues: list[Catalogue]) -> None:
    """Delete the version folders that none of `catalogues` refers to."""
    used = {
        Path(file).parts[:3]
        for catalogue in catalogues
        for parts in catalogue.values()
        for part in parts.values()
        for file in part["files"]
    }
    for version_dir in (folder / "tables").glob("*/v*"):
        if version_dir.relative_to(folder).parts not in used:
            shutil.rmtree(version_dir)
