"""The published copy: what analysts, dashboards and `petwellness query` read.

Immutable Parquet files and a small DuckDB file of views over them, replaced in
one rename at the end of a run, so that readers never meet a writer's lock and
never see half a run. Only tables and columns the caller names are published.
`published.json` names the files in force with a fingerprint of their content;
what has not changed is not written again, and of tables kept by day only the days
that were rebuilt are looked at, with those they share a file with: a month of few
rows is one file, of many a file a day.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
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

# As much as dbt may use before it.
MEMORY_LIMIT = "800MB"

# Files are in their table's order, so that a reader of few pets skips most of each. Of 100 days of a thousand pets, the
# rows of four took 453 ms; 468 with 122,880 and 719 with 16,384 (more to look up).
ROW_GROUP_ROWS = 65_536

# Rows that are sorted at once, in the memory above; a month of no more is one file. A day of 7.2 million took 16.7 s, as
# long as unsorted; four million at once in 400 MB took 29 s, all 29 million of a day did not end in six minutes.
SORTED_ROWS = 2_000_000
# Rows from which the bounds of its files are estimated.
SAMPLE_ROWS = 100_000

# Of `(select ...) as content`: rows, and a sum of hashes that no order and no layout changes.
ROWS_AND_HASH = "count(*), coalesce(sum(hash(content)), 0)::varchar"

PARQUET = "format parquet, compression zstd"

# The part of a table that is not kept by day, and of one without rows.
WHOLE = "all"


class Part(TypedDict):
    """One day of a table (or all of it): files with its rows, relative to the folder, and its content's fingerprint."""

    files: list[str]
    fingerprint: str


Catalogue = dict[str, dict[str, Part]]


@dataclass(frozen=True)
class PublishedTable:
    """One table to publish: its columns for readers, its day column when kept by day, and what orders a file's rows."""

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
        columns = ", ".join(map(_quoted, self.columns))
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
    folder.mkdir(parents=True, exist_ok=True)
    before = read_catalogue(folder)
    previous: Catalogue = before.get("tables", {})
    version = _next_version(folder, before.get("version", 0))
    catalogue = dict(previous)
    files_written = days_changed = 0
    for table in tables:
        old = previous.get(table.full_name, {})
        fingerprints = _fingerprints(con, table, old, rebuilt)
        changed = {part for part, value in fingerprints.items() if _fingerprint(old, part) != value}
        changed |= old.keys() - fingerprints.keys()
        together = _written_together(fingerprints, old, changed)
        written = _export(con, folder, table, version, fingerprints, together)
        catalogue[table.full_name] = {
            part: Part(files=written[part] if part in written else old[part]["files"], fingerprint=value)
            for part, value in sorted(fingerprints.items())
        }
        files_written += len(_files_of(written.values()))
        days_changed += len(changed)
        if changed:
            progress(f"published {table.full_name}: {len(changed)} part{'s' if len(changed) != 1 else ''}")
    if days_changed:
        _switch(folder, catalogue, version)
        # Readers may still hold the database of the version before this one.
        _remove_unreferenced(folder, [catalogue, previous])
    files = sum(len(_files_in(parts)) for parts in catalogue.values())
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
        for file in _files_in(parts)
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


def _files_in(parts: Mapping[str, Part]) -> list[str]:
    return _files_of(part["files"] for part in parts.values())


def _files_of(lists: Iterable[list[str]]) -> list[str]:
    """Each file once, in the order of the lists."""
    return list(dict.fromkeys(file for files in lists for file in files))


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
    """Days that may differ from what is published, and those in one file with them; None for all days."""
    has_shape = all(part["fingerprint"].endswith(f"-{shape}") for part in old.values())
    if table.day_column is None or rebuilt is None or not old or not has_shape:
        return None
    days = rebuilt.get(table.full_name, frozenset())
    if days is None:
        return None
    one_file = {
        month
        for month in {_month(str(day)) for day in days}
        if sum(_row_count(part["fingerprint"]) for day, part in old.items() if _month(day) == month)
        <= SORTED_ROWS
    }
    return days | {date.fromisoformat(day) for day in old if day != WHOLE and _month(day) in one_file}


def _month(part: str) -> str:
    """Of a day in ISO format; `all` stays what it is."""
    return part[:7]


def _written_together(
    fingerprints: Mapping[str, str], old: Mapping[str, Part], changed: Collection[str]
) -> list[list[str]]:
    """The parts to write, those that share a file in one list: a month's days where they have few rows."""
    months: dict[str, list[str]] = {}
    for part in sorted(fingerprints):
        months.setdefault(_month(part), []).append(part)
    holders = Counter(file for part in old.values() for file in part["files"])
    # Days whose file goes when another of its days changes.
    sharing = {day for day, part in old.items() if any(holders[file] > 1 for file in part["files"])}
    together: list[list[str]] = []
    for month in sorted(months.keys() & {_month(part) for part in changed}):
        days = months[month]
        if sum(_row_count(fingerprints[day]) for day in days) <= SORTED_ROWS:
            together.append(days)
        else:
            together += [[day] for day in days if day in changed or day in sharing]
    return together


def _export(
    con: duckdb.DuckDBPyConnection,
    folder: Path,
    table: PublishedTable,
    version: int,
    fingerprints: Mapping[str, str],
    together: Iterable[list[str]],
) -> dict[str, list[str]]:
    """Write parts of one table, each list of `together` apart from the others; the files (relative to `folder`)
    of each part."""
    relative = Path("tables") / table.full_name / f"v{version:06}"
    files: dict[str, list[str]] = {}
    for parts in together:
        (folder / relative).mkdir(parents=True, exist_ok=True)
        rows = sum(_row_count(fingerprints[part]) for part in parts)
        names = _export_in_order(con, folder / relative, table, parts, rows)
        files |= {part: [str(relative / name) for name in names] for part in parts}
    return files


def _export_in_order(
    con: duckdb.DuckDBPyConnection, target: Path, table: PublishedTable, parts: list[str], rows: int
) -> list[str]:
    """Write parts in files of at most about SORTED_ROWS that are in the table's order each; the files' names."""
    name = parts[0] if len(parts) == 1 else _month(parts[0])
    where = "true"
    order = [*table.sorted_by]
    if table.day_column is not None and parts != [WHOLE]:
        where = in_days(f'"{table.day_column}"', frozenset(map(date.fromisoformat, parts)))
        order += [table.day_column] if len(parts) > 1 else []
    ordered = f" order by {', '.join(map(_quoted, order))}" if order else ""
    slices = _slices(con, table, where, -(-rows // SORTED_ROWS)) if table.sorted_by else ["true"]
    names = [f"{name}.parquet"] if len(slices) == 1 else [f"{name}_{n}.parquet" for n in range(len(slices))]
    for file, slice_of in zip(names, slices, strict=True):
        con.execute(
            f"copy ({table.select} where {where} and {slice_of}{ordered})"
            f" to '{target / file}' ({PARQUET}, row_group_size {ROW_GROUP_ROWS})"
        )
    return names


def _quoted(column: str) -> str:
    return f'"{column}"'


def _slices(con: duckdb.DuckDBPyConnection, table: PublishedTable, where: str, count: int) -> list[str]:
    """Conditions that divide rows into about equal parts, by the column that orders them last."""
    column = _quoted(table.sorted_by[-1])
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
            paths = [str(folder / file) for file in _files_in(parts)]
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
        for file in _files_in(parts)
    }
    for version_dir in (folder / "tables").glob("*/v*"):
        if version_dir.relative_to(folder).parts not in used:
            shutil.rmtree(version_dir)
