"""Every statement of a load and of a reconciliation, without anything that executes it.

A session that writes statements down and answers as raw would, through one load that
adopts, copies, mends and redacts. Held to what no emulator shows: the statements are
Snowflake's language, their functions are on the list, nothing inside a transaction
would commit it, and pipes are asked as documented.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contracts.registry import FEEDS
from lake.landing import Manifest
from lake.store import LocalStore
from warehouse.snowflake import raw as snowflake_raw
from warehouse.snowflake import reconcile as snowflake_reconcile
from warehouse.snowflake.pipes import (
    PAUSED,
    RUNNING,
    SnowflakePipes,
    copied_statement,
    created_statement,
    pause_statement,
    status_statement,
)
from warehouse.snowflake.sql import copy_statement, staged

from .stand_in import START, Zone, quarantine, redact

FEED = "telemetry_events"
FUNCTIONS = {
    line
    for line in (Path(__file__).parents[2] / "dbt_project" / "snowflake_functions.txt")
    .read_text()
    .splitlines()
    if not line.startswith("#")
} | {
    "system$pipe_status",
    "information_schema.copy_history",
    "table",
}  # of a session and its account: no model's


@dataclass
class Session:
    """Stands where a session would: knows which ranges are in raw and in the ledger, executes nothing."""

    adopted: Manifest
    copied: Manifest
    mended: Manifest
    state: str = RUNNING
    statements: list[str] = field(default_factory=list)
    marked: bool = False
    batch: list[tuple[Any, ...]] = field(default_factory=list)

    def cursor(self) -> _Cursor:
        return _Cursor(self)

    def answer(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Rows of one question; a question nobody foresaw is an error."""
        if sql.startswith("alter pipe"):
            self.state = PAUSED if sql.endswith("true") else RUNNING
        if not sql.startswith(("select", "with")):
            return []
        for pattern, rows in self.answers(sql, values):
            if re.search(pattern, sql):
                return rows
        raise LookupError(f"nobody answers: {sql}")

    def answers(self, sql: str, values: tuple[Any, ...]) -> Iterator[tuple[str, list[tuple[Any, ...]]]]:
        status = {"executionState": self.state, "pendingFileCount": 0}
        whole = {m.source_file: m for m in (self.adopted, self.copied, self.mended)}
        yield "pipe_status", [(json.dumps(status),)]
        yield "pipes where", [(datetime(2026, 6, 1),)]
        yield "copy_history", [(f"{FEED}/x", "LOAD_FAILED", None, "bad", FEED, datetime(2026, 6, 5))]
        yield "max.load_seq", [(7,)]
        yield "max.loaded_at|max.watermark_ts", [(None,)]
        yield "from raw.partition_progress$", []
        yield "information_schema.tables", [("owners",)]
        yield "lateral flatten", [("2026-06-01",)]
        yield "where load_seq <= 3", []
        yield r"from raw.owners$", [(2,)]
        yield "from raw.build_marks where", []
        yield "from raw.redactions$", []
        yield r"from raw.\w+ where source_file = ", [(5,)]
        yield "start_offset from raw.load_history where stream_id", []
        yield r"start_offset from raw.load_history$", [self.mended.range_key]
        in_raw = [] if "loading_" in sql else [self.copied.source_file]
        found = [m for name, m in whole.items() if name in values and name not in in_raw]
        yield (
            "count.distinct kafka_offset.* from raw.(loading_)?[a-z_]+ where",
            [(m.source_file, m.rows, m.rows, m.start, m.end - 1) for m in found],
        )
        yield "source_file in ", []
        yield (
            "from raw.covered_rows group by",
            [(self.adopted.source_file, 1, 1), (self.copied.source_file, 1, 0)],
        )
        yield "from raw.covered_rows as gone inner", [(*self.mended.range_key, 1)]
        yield "distinct landed.event_ts", [(datetime(2026, 6, 1).date(),)]
        yield "redacted_count from raw.redacted_ranges where stream_id", [(2,)]
        yield "from raw.loading_ranges$", self.batch
        yield "as surplus", [(feed, 5 if feed == FEED else 0) for feed in FEEDS]
        yield "history.source_file is null$", [(1,)]
        yield "^with files as .*offset_count <> ", [self.mended.range_key]
        yield "^with files as", [(*self.mended.range_key, self.mended.end, 5, 5, 5, 0)]
        yield "history.source_file is null group", [(FEED, "s", 0, 1, 2, 2, "f")]
        yield "min.loaded_at", [(datetime(2026, 5, 1),)]


class _Cursor:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._rows: list[tuple[Any, ...]] = []

    def __enter__(self) -> _Cursor:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def execute(self, sql: str, values: tuple[Any, ...] | None = None) -> None:
        self._session.statements.append(bound(sql, values or ()))
        self._rows = self._session.answer(sql, values or ())

    def executemany(self, sql: str, rows: list[tuple[Any, ...]]) -> None:
        self._session.statements.append(bound(sql, rows[0]))
        if "into raw.loading_ranges" in sql:
            self._session.batch = [row[:3] for row in rows]

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self._rows


def bound(sql: str, values: tuple[Any, ...]) -> str:
    """A statement with its values, as the connector writes them."""
    return sql % tuple(map(literal, values)) if values else sql


def literal(value: Any) -> str:
    if value is None:
        return "null"
    return str(value) if isinstance(value, bool | int) else "'" + str(value).replace("'", "''") + "'"


@pytest.fixture(scope="module")
def statements(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a load sends that adopts, copies, mends, redacts and forgets, and a reconciliation."""
    store = LocalStore(tmp_path_factory.mktemp("lake"))
    zone = Zone(store, *[None] * 4)  # type: ignore[arg-type]
    mended, adopted, copied = (zone.land(5) for _ in range(3))
    extract = zone.land_owners("day-1", ["o1", "o2"])
    redact(zone, owners=("o1",))
    quarantine(zone, adopted, copied)
    con: Any = Session(adopted, copied, mended)
    pipes = SnowflakePipes(con)
    report = snowflake_raw.load_pending(con, store, [mended, adopted, copied], pipes)
    assert (report.adopted, report.copied, report.mended) == (1, 1, 1)
    con.adopted, con.copied = copied, extract
    snowflake_raw.load_pending(con, store, [extract], pipes)
    snowflake_raw.forget_ranges(con, [mended])
    snowflake_raw.set_build_mark(con, "warehouse", 3)
    assert snowflake_raw.build_mark(con, "warehouse") == 7
    assert snowflake_raw.vouched_seq(con) == 7
    snowflake_raw.loaded_keys(con, until_seq=3)
    snowflake_raw.dirty_days(con, 3)
    snowflake_raw.data_time(con)
    snowflake_raw.last_load_started_at(con)
    snowflake_raw.table_row_counts(con, "raw")
    snowflake_reconcile.account_findings(con, store, pipes, START + timedelta(days=30), 0)
    sent: list[str] = con.statements
    return sent


def test_every_statement_is_in_snowflakes_language(statements: list[str]) -> None:
    from sqlfluff.core import FluffConfig, Linter

    linter = Linter(
        config=FluffConfig(
            overrides={"dialect": "snowflake", "templater": "raw", "large_file_skip_byte_limit": 0}
        )
    )
    problems = []
    for sql in dict.fromkeys(statements):
        parsed = linter.parse_string(sql)
        problems += [f"{error.desc()}: {sql[:200]}" for error in parsed.violations]
        assert parsed.tree is not None
        named = {one.raw.lower() for one in parsed.tree.recursive_crawl("function_name")}
        problems += [f"unknown function {name}: {sql[:200]}" for name in named - FUNCTIONS]
    assert problems == []
    kinds = {" ".join(sql.split()[:2]) for sql in statements}
    assert kinds >= {
        "begin transaction",
        "copy into",
        "alter pipe",
        "create or",
        "delete from",
        "insert into",
        "update raw.build_marks",
        "drop table",
    }


def test_nothing_inside_a_transaction_would_commit_it(statements: list[str]) -> None:
    """Snowflake commits before and after a statement that creates, alters or drops."""
    inside, transactions = False, 0
    for sql in statements:
        if sql == "begin transaction":
            assert not inside
            inside = True
            transactions += 1
        elif sql in ("commit", "rollback"):
            inside = False
        elif inside:
            assert sql.startswith(("select", "insert", "update", "delete", "with")), sql
    assert transactions >= 6


def test_a_transaction_begins_by_making_other_loads_wait(statements: list[str]) -> None:
    begun = [n for n, sql in enumerate(statements) if sql == "begin transaction"]
    locked = [n for n in begun if statements[n + 1].startswith("update raw.build_marks")]
    # All but the one that remembers what was built.
    assert len(locked) == len(begun) - 1


def test_files_are_copied_with_the_pipe_paused_only(statements: list[str]) -> None:
    state = {}
    copied = 0
    for sql in statements:
        if found := re.match(r"alter pipe raw\.(\w+) set pipe_execution_paused = (\w+)", sql):
            state[found[1]] = found[2]
        if found := re.match(r"copy into raw\.loading_(\w+)", sql):
            copied += 1
            assert state[found[1]] == "true"
    assert copied >= 3
    assert {*state.values()} == {"false"}


def test_pipes_are_asked_by_their_names() -> None:
    assert status_statement("owners") == "select system$pipe_status('raw.owners') as pipe_status"
    assert pause_statement("owners", True) == "alter pipe raw.owners set pipe_execution_paused = true"
    assert pause_statement("owners", False) == "alter pipe raw.owners set pipe_execution_paused = false"
    assert "pipe_name = 'OWNERS'" in created_statement("owners")
    assert "table_name => 'RAW.OWNERS'" in copied_statement("owners", datetime(2026, 6, 1))
    assert "'2026-06-01 00:00:00 +0000'::timestamp_tz" in copied_statement("owners", datetime(2026, 6, 1))


def test_a_copy_names_its_files_and_no_others() -> None:
    from lake.landing import feed_schema

    stage, path = staged("landing/owners/date=2026-06-01/it's.parquet")
    sql = copy_statement("raw.loading_owners", feed_schema("owners"), stage, [path])
    assert "from @raw.landing/)" in sql
    assert "files = ('owners/date=2026-06-01/it''s.parquet')" in sql
    assert "on_error = abort_statement" in sql
    assert staged("redacted/owners/x.parquet") == ("redacted", "owners/x.parquet")
    with pytest.raises(ValueError, match="no stage reaches compacted/owners/x"):
        staged("compacted/owners/x.parquet")
