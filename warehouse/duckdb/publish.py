"""The published copy: what analysts, dashboards and `petwellness query` read.

Immutable Parquet files and a small DuckDB file of views over them, replaced in
one rename at the end of a run, so that readers never meet a writer's lock and
never see half a run. Only tables and columns the caller names are published, and
only once a search of the new files for personal data has found none.
`published.json` names the files in force with a fingerprint of their content;
what has not changed is not written again, and of tables kept by day only the days
that were rebuilt are looked at, with those they share files with (`publish_layout`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from lake.sql_text import literal, literals
from warehouse.duckdb import publish_layout
from warehouse.duckdb.publish_layout import WHOLE, Group, layout, name_of, to_write
from warehouse.duckdb.rebuilt import RebuiltDays, in_days

if TYPE_CHECKING:
    import duckdb

    from warehouse.duckdb.personal_data import Finding

PUBLISHED_SCHEMAS = ("cur", "anl", "ml")
DATABASE_NAME = "petwellness.duckdb"
CATALOGUE_NAME = "published.json"

# As much as dbt may use before it.
MEMORY_LIMIT = "800MB"

# Files are in their table's order, so that a reader of few pets skips most of each. Of 100 days of a thousand pets, the
# rows of four took 453 ms; 468 with 122,880 and 719 with 16,384 (more to look up).
ROW_GROUP_ROWS = 65_536

# Rows from which the bounds of its files are estimated.
SAMPLE_ROWS = 100_000

# Of `(select ...) as content`: rows, and a sum of hashes that no order and no layout changes.
ROWS_AND_HASH = "count(*), coalesce(sum(hash(content)), 0)::varchar"

PARQUET = "format parquet, compression zstd"


class Part(TypedDict):
    """One day of a table (or all of it): files with its rows, relative to the folder, and its content's fingerprint."""

    files: list[str]
    fingerprint: str


Catalogue = dict[str, dict[str, Part]]


class PersonalDataFoundError(ValueError):
    """What was to be published holds personal data; the message names places and numbers, never a value."""

    def __init__(self, findings: Sequence[Finding], in_force: int) -> None:
        self.findings = tuple(findings)
        places = "; ".join(f"{one.place}: {one.count} x {one.kind}" for one in findings)
        kept = f"readers keep version {in_force}" if in_force else "there is no published copy yet"
        super().__init__(
            f"nothing was published, {kept}. Personal data in {places}. Say `pii: true` of the column in its YAML,"
            " or mend what fills it, and publish again"
        )


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
    """Write what changed of `tables` as Parquet under `folder`, look for personal data in it and switch readers to it.

    Tables that are not mentioned stay as they are. When nothing changed nothing
    is written and the version stays. `rebuilt` names the days of tables kept by day
    that may have changed since the last publication; without it every day may have.

    Raises PersonalDataFoundError: readers keep what they have, and what was written is gone again.
    """
    con.execute(f"set memory_limit = '{MEMORY_LIMIT}'")
    folder.mkdir(parents=True, exist_ok=True)
    before = read_catalogue(folder)
    previous: Catalogue = before.get("tables", {})
    in_force: int = before.get("version", 0)
    version = _next_version(folder, in_force)
    catalogue = dict(previous)
    new_files: dict[str, list[str]] = {}
    days_changed = 0
    with _not_left_behind(folder, version):
        for table in tables:
            old = previous.get(table.full_name, {})
            fingerprints = _fingerprints(con, table, old, rebuilt)
            changed = _changed(old, fingerprints)
            written = _export(con, folder, table, version, fingerprints, _to_write(table, old, fingerprints))
            catalogue[table.full_name] = {
                part: Part(files=written[part] if part in written else old[part]["files"], fingerprint=value)
                for part, value in sorted(fingerprints.items())
            }
            if written:
                new_files[table.full_name] = _files_of(written.values())
            days_changed += len(changed)
            if changed:
                progress(f"written {table.full_name}: {len(changed)} part{'s' if len(changed) != 1 else ''}")
        findings = _personal_data(con, folder, new_files)
        if findings:
            raise PersonalDataFoundError(findings, in_force)
    files_written = len(_files_of(new_files.values()))
    is_new = bool(days_changed or files_written)
    if is_new:
        _switch(folder, catalogue, version)
        # Readers may still hold the database of the version before this one.
        _remove_unreferenced(folder, [catalogue, previous])
    files = sum(len(_files_in(parts)) for parts in catalogue.values())
    return PublishReport(version if is_new else in_force, len(catalogue), files, files_written, days_changed)


def _personal_data(
    con: duckdb.DuckDBPyConnection, folder: Path, new_files: Mapping[str, Sequence[str]]
) -> list[Finding]:
    """Personal data in files (by table, relative to `folder`) that readers do not see yet. Files in force are
    immutable and were looked at when they were new."""
    if not new_files:
        return []
    from contracts.personal_data import Detector
    from warehouse.duckdb.personal_data import known_people, parquet_findings

    detector = Detector(known_people(con))
    return [
        finding
        for table, files in new_files.items()
        for finding in parquet_findings(con, detector, table, [folder / file for file in files])
    ]


@contextmanager
def _not_left_behind(folder: Path, version: int) -> Iterator[None]:
    """What was written of a version goes when it is not published: it may hold what nobody may read."""
    try:
        yield
    except BaseException:
        for version_dir in (folder / "tables").glob(f"*/v{version:06}"):
            shutil.rmtree(version_dir)
        raise


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


def _changed(old: Mapping[str, Part], fingerprints: Mapping[str, str]) -> set[str]:
    """Parts that came, went or have other content."""
    before = {part: one["fingerprint"] for part, one in old.items()}
    return {
        part for part in before.keys() | fingerprints.keys() if before.get(part) != fingerprints.get(part)
    }


def _to_write(table: PublishedTable, old: Mapping[str, Part], fingerprints: Mapping[str, str]) -> list[Group]:
    rows = {part: _row_count(value) for part, value in fingerprints.items()}
    files = {part: one["files"] for part, one in old.items()}
    return to_write(layout(rows, bool(table.sorted_by)), files, _changed(old, fingerprints))


def _fingerprints(
    con: duckdb.DuckDBPyConnection,
    table: PublishedTable,
    old: Mapping[str, Part],
    rebuilt: RebuiltDays | None,
) -> dict[str, str]:
    """Fingerprint of each day's rows (of all rows for a table not kept by day).

    Days that were not rebuilt and need not be written again keep the fingerprint they have.
    """
    days = _days_to_look_at(table, old, rebuilt)
    found = _looked_at(con, table, days)
    if days is not None:
        seen = {WHOLE, *map(str, days)}
        found |= {part: one["fingerprint"] for part, one in old.items() if part not in seen}
        beside = {part for group in _to_write(table, old, found) for part in group} - seen
        found = {part: value for part, value in found.items() if part not in beside}
        found |= _looked_at(con, table, frozenset(map(date.fromisoformat, beside)))
    # A table without rows still needs one file, from which its view knows the columns.
    return found or {WHOLE: f"0-{_shape(table)}"}


def _looked_at(
    con: duckdb.DuckDBPyConnection, table: PublishedTable, days: frozenset[date] | None
) -> dict[str, str]:
    """Fingerprints of days (None: of all) that have rows, whatever the order of these: their number, their hash, the
    columns."""
    day = _quoted(table.day_column) if table.day_column else None
    part, where = (f"cast({day} as varchar)", in_days(day, days)) if day else (f"'{WHOLE}'", "true")
    rows = con.execute(
        f"select {part} as part, {ROWS_AND_HASH} from ({table.select} where {where}) as content group by part"
    ).fetchall()
    return {part: f"{count}-{total}-{_shape(table)}" for part, count, total in rows}


def _shape(table: PublishedTable) -> str:
    return ",".join(table.columns)


def _row_count(fingerprint: str) -> int:
    return int(fingerprint.split("-", 1)[0])


def _days_to_look_at(
    table: PublishedTable, old: Mapping[str, Part], rebuilt: RebuiltDays | None
) -> frozenset[date] | None:
    """Days that may differ from what is published; None for all of them."""
    has_shape = all(part["fingerprint"].endswith(f"-{_shape(table)}") for part in old.values())
    if table.day_column is None or rebuilt is None or not old or not has_shape:
        return None
    return rebuilt.get(table.full_name, frozenset())


def _export(
    con: duckdb.DuckDBPyConnection,
    folder: Path,
    table: PublishedTable,
    version: int,
    fingerprints: Mapping[str, str],
    groups: Iterable[Group],
) -> dict[str, list[str]]:
    """Write groups of parts of one table; the files (relative to `folder`) of each part."""
    relative = Path("tables") / table.full_name / f"v{version:06}"
    files: dict[str, list[str]] = {}
    for group in groups:
        (folder / relative).mkdir(parents=True, exist_ok=True)
        rows = sum(_row_count(fingerprints[part]) for part in group)
        names = _export_in_order(con, folder / relative, table, group, rows)
        files |= {part: [str(relative / name) for name in names] for part in group}
    return files


def _export_in_order(
    con: duckdb.DuckDBPyConnection, target: Path, table: PublishedTable, group: Group, rows: int
) -> list[str]:
    """Write parts in files of at most about SORTED_ROWS that are in the table's order each; the files' names."""
    where = "true"
    order = [*table.sorted_by]
    if table.day_column is not None and group != (WHOLE,):
        where = in_days(_quoted(table.day_column), frozenset(map(date.fromisoformat, group)))
        order += [table.day_column] if len(group) > 1 else []
    ordered = f" order by {', '.join(map(_quoted, order))}" if order else ""
    # A file of few pets serves who reads these, but finding them takes a look at all rows; of one day time finds them.
    ways = table.sorted_by if len(group) > 1 else table.sorted_by[::-1]
    slices = _slices(con, table, where, -(-rows // publish_layout.SORTED_ROWS), ways)
    name = name_of(group)
    names = [f"{name}.parquet"] if len(slices) == 1 else [f"{name}_{n}.parquet" for n in range(len(slices))]
    for file, slice_of in zip(names, slices, strict=True):
        con.execute(
            f"copy ({table.select} where {where} and {slice_of}{ordered})"
            f" to {literal(target / file)} ({PARQUET}, row_group_size {ROW_GROUP_ROWS})"
        )
    return names


def _slices(
    con: duckdb.DuckDBPyConnection, table: PublishedTable, where: str, count: int, columns: Sequence[str]
) -> list[str]:
    """Conditions that divide rows into about `count` equal parts, by the first of `columns` that can."""
    shares = [number / count for number in range(1, count)]
    if not shares:
        return ["true"]
    best: list[str] = ["true"]
    for column in map(_quoted, columns):
        sample = f'select {column} from "{table.schema}"."{table.name}" where {where} using sample {SAMPLE_ROWS} rows'
        [(found,)] = con.execute(f"select quantile_disc({column}, {shares}) from ({sample})").fetchall()
        if not found:
            continue
        # As text, which gives any type back.
        bounds = [literal(str(bound)) for bound in sorted(set(found))]
        between = [f"{column} >= {first} and {column} < {last}" for first, last in pairwise(bounds)]
        slices = [
            f"({column} < {bounds[0]} or {column} is null)",
            *between,
            f"{column} >= {bounds[-1]}",
        ]
        if len(slices) == count:
            return slices
        best = max(best, slices, key=len)
    return best


def _quoted(column: str) -> str:
    return f'"{column}"'


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
            paths = literals(folder / file for file in _files_in(parts))
            con.execute(
                f'create view "{schema}"."{table}" as'
                f" select * from read_parquet([{paths}], hive_partitioning = false)"
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
