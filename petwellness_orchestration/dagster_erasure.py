"""What Dagster's own storage still says of erased households, and its removal.

Dagster keeps events of runs, their metadata and tags, and what steps printed. None of it is a table of the
warehouse and no load honours the ledger there. Looked through are all texts of the instance's databases, SQLite or
PostgreSQL, by Dagster's own connections, and captured output. Which households are erased says the redaction ledger;
where else something is left, `governance.erasure.leftovers`.

A daemon may be at work meanwhile. A row is changed only if it still says what was read, so that nothing that Dagster
writes is lost; a file is overwritten in place, at its own length, so that whoever appends to it goes on. What changed
in between is found by the next purge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petwellness_orchestration.settings import PlatformSettings

if TYPE_CHECKING:
    import dagster as dg
    from sqlalchemy import Column, Connection, Table

    from governance.erasure.leftovers import Leftover
    from lake.redactions import Redactions
    from lake.store import ObjectStore

KIND = "dagster"
ERASED = "erased"

_IDENTIFYING = ("name", "contact_phone", "contact_email", "address")

# One word, or a short text, stands in logs for other things, too: a name of one word is not looked for.
_SHORTEST_TEXT = 6
_ONE_WORD = re.compile(r"\w+")

_ID = re.compile(r"[A-Za-z0-9_-]+")
# An escape of JSON, also of JSON in JSON, is no part of the id that follows it.
_ID_OR_ESCAPE = re.compile(r"\\+(?:u[0-9a-fA-F]{4}|.)|[A-Za-z0-9_-]+", re.DOTALL)

_ROWS_AT_ONCE = 200

Connect = Callable[[], AbstractContextManager["Connection"]]
Found = tuple["Table", "Column[Any]", dict[str, Any], str]


@dataclass(frozen=True)
class ValuesToErase:
    """What must not be said any more: ids of erased owners, pets and records, and, while the lake still has them,
    what identifies the owners."""

    values: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.values)

    @cached_property
    def _ids(self) -> frozenset[str]:
        return frozenset(value for value in self.values if _ID.fullmatch(value))

    @cached_property
    def _others(self) -> re.Pattern[str] | None:
        forms = {form for value in self.values - self._ids for form in _json_forms(value)}
        texts = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
        return (
            re.compile(rf"(?:(?<![A-Za-z0-9_-])|(?<=\\[bfnrt]))(?:{texts})(?![A-Za-z0-9_-])")
            if texts
            else None
        )

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where a text says one of them, in order and disjoint."""
        found = [match.span() for match in _ID_OR_ESCAPE.finditer(text) if match[0] in self._ids]
        if self._others is not None:
            found += [match.span() for match in self._others.finditer(text)]
        disjoint: list[tuple[int, int]] = []
        for low, high in sorted(found):
            if disjoint and low < disjoint[-1][1]:
                disjoint[-1] = (disjoint[-1][0], max(high, disjoint[-1][1]))
            else:
                disjoint.append((low, high))
        return disjoint

    def erased(self, text: str) -> str:
        """The text with `erased` for each of them."""
        parts, after = [], 0
        for low, high in self.spans(text):
            parts += [text[after:low], ERASED]
            after = high
        return "".join([*parts, text[after:]])


def values_to_erase(redactions: Redactions, store: ObjectStore) -> ValuesToErase:
    """What the entries say must be gone. Devices stay: a collar goes on to the next household."""
    from contracts.registry import RECORD_FEED_NAMES
    from lake.records import read_records
    from lake.redactions import Redactions

    values = {*redactions.owner_ids, *redactions.pet_ids}
    for feed in RECORD_FEED_NAMES:
        values |= redactions.business_keys(feed)
    if redactions.owner_ids:
        for row in read_records(store, "owners", [*_IDENTIFYING], Redactions()).rows():
            if row["owner_id"] in redactions.owner_ids:
                said = {row[column] for column in _IDENTIFYING if row[column]}
                values |= {one for one in said if len(one) >= _SHORTEST_TEXT and not _ONE_WORD.fullmatch(one)}
    return ValuesToErase(frozenset(values))


def dagster_leftovers(settings: PlatformSettings, sought: ValuesToErase) -> list[Leftover]:
    """Tables and files of Dagster's storage that still say something of it; nothing is changed."""
    from governance.erasure.leftovers import Leftover

    if not sought:
        return []
    rows: dict[str, int] = {}
    with _storage(settings) as opened:
        for name, connect in opened.databases:
            for table, _, _, _ in _found_in(connect, sought):
                place = f"{KIND} {name} {table.name}"
                rows[place] = rows.get(place, 0) + 1
        for path in _captured(opened.folder):
            if spans := sought.spans(_read(path)):
                rows[f"{KIND} {path.relative_to(opened.folder)}"] = len(spans)
    return [Leftover(KIND, place, count, "texts of erased households") for place, count in rows.items()]


def erase_from_dagster(settings: PlatformSettings, sought: ValuesToErase, dry_run: bool) -> int:
    """Take it out of Dagster's storage; how many texts of rows and files were, or with `dry_run` would be, changed."""
    if not sought:
        return 0
    changed = 0
    with _storage(settings) as opened:
        for _, connect in opened.databases:
            found = list(_found_in(connect, sought))
            changed += len(found) if dry_run else _overwrite_rows(connect, found, sought)
        for path in _captured(opened.folder):
            spans = sought.spans(_read(path))
            changed += bool(spans)
            if spans and not dry_run:
                _overwrite_file(path, spans)
    return changed


@dataclass(frozen=True)
class _Storage:
    databases: list[tuple[str, Connect]]
    folder: Path


@contextmanager
def _storage(settings: PlatformSettings) -> Iterator[_Storage]:
    """The instance of the state folder; nothing to look at before the first one was made."""
    home = settings.state.home / "dagster"
    if not (home / "dagster.yaml").exists():
        yield _Storage([], home)
        return
    import dagster as dg

    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield _Storage(_databases(instance), home)


def _databases(instance: dg.DagsterInstance) -> list[tuple[str, Connect]]:
    events: Any = instance.event_log_storage
    runs: Any = instance.run_storage
    schedules: Any = instance.schedule_storage
    connects = {"events": events.index_connection, "runs": runs.connect, "schedules": schedules.connect}
    found: dict[str, tuple[str, Connect]] = {}
    for name, connect in connects.items():
        with connect() as con:
            # On PostgreSQL the three are one database.
            found.setdefault(str(con.engine.url), (name, connect))
    return [*found.values()]


def _found_in(connect: Connect, sought: ValuesToErase) -> Iterator[Found]:
    """Texts of a database that say something: table, column, the row's key, the text."""
    from sqlalchemy import LargeBinary, MetaData, String

    with connect() as con:
        schema = MetaData()
        schema.reflect(bind=con)
        for table in schema.sorted_tables:
            keys = [*table.primary_key.columns]
            texts = [
                column
                for column in table.columns
                if isinstance(column.type, String) and not isinstance(column.type, LargeBinary)
            ]
            if not keys or not texts:
                continue
            for row in _rows(con, keys, texts):
                for column, text in zip(texts, row[len(keys) :], strict=True):
                    if isinstance(text, str) and sought.spans(text):
                        key = {of.name: value for of, value in zip(keys, row, strict=False)}
                        yield table, column, key, text


def _rows(con: Connection, keys: list[Column[Any]], texts: list[Column[Any]]) -> Iterator[tuple[Any, ...]]:
    """Key and texts of every row, in pages by key: Dagster's connections to PostgreSQL have no cursor of the server."""
    from sqlalchemy import select, tuple_

    page = select(*keys, *texts).order_by(*keys).limit(_ROWS_AT_ONCE)
    rows = con.execute(page).all()
    while rows:
        yield from (tuple(row) for row in rows)
        rows = con.execute(page.where(tuple_(*keys) > tuple_(*rows[-1][: len(keys)]))).all()


def _overwrite_rows(connect: Connect, found: list[Found], sought: ValuesToErase) -> int:
    from sqlalchemy import update

    changed = 0
    for first in range(0, len(found), _ROWS_AT_ONCE):
        with connect() as con:
            if con.dialect.name == "sqlite":
                con.exec_driver_sql("pragma secure_delete = on")
            for table, column, key, text in found[first : first + _ROWS_AT_ONCE]:
                of_row = [table.columns[name] == value for name, value in key.items()]
                changed += con.execute(
                    update(table).where(*of_row, column == text).values({column.name: sought.erased(text)})
                ).rowcount
    if found:
        with connect() as con:
            # What the write-ahead log holds goes into the file; a reader may hold it up, the next purge tries again.
            if con.dialect.name == "sqlite":
                con.exec_driver_sql("pragma wal_checkpoint(truncate)")
    return changed


def _captured(home: Path) -> Iterable[Path]:
    """Files of what steps printed."""
    return sorted(path for path in home.glob("storage/**/compute_logs/*") if path.is_file())


def _read(path: Path) -> str:
    """A file as one character for each byte, so that places in the text are places in the file."""
    return path.read_bytes().decode("latin-1")


def _overwrite_file(path: Path, spans: Iterable[tuple[int, int]]) -> None:
    with path.open("r+b") as file:
        for low, high in spans:
            file.seek(low)
            file.write(b"x" * (high - low))


def _json_forms(value: str) -> Iterator[str]:
    """A value as it stands in a text, in JSON, in JSON in JSON, and in a file read by bytes."""
    yield value
    yield value.encode().decode("latin-1")
    once = json.dumps(value)[1:-1]
    yield once
    yield json.dumps(once)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
