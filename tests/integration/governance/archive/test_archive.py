"""Days move out of a real warehouse file into a real lake and back; whatever dies, no row is lost or there twice."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from governance.archive.archive import (
    RetainReport,
    TierProofError,
    due_days,
    find_problems,
    retain,
    withdraw_outdated,
)
from governance.archive.cold import load_cold_days, put_cold_day
from governance.archive.policy import TieredTable
from governance.archive.restore import RestoreError, release_day, restore_day
from governance.erasure.leftovers import cold_leftovers, warehouse_leftovers
from lake.redactions import ERASURE, Arrivals, Redaction, load_redactions, put_redaction
from lake.store import LocalStore, ObjectStore, S3Store
from petwellness_orchestration import retaining
from petwellness_orchestration.settings import load_settings
from warehouse.compare import compare_tables
from warehouse.duckdb.raw import WAREHOUSE_MARK, latest_load_seq, load_pending, open_warehouse, set_build_mark

EVENTS = TieredTable("anl", "telemetry_events", "hot", 3, order=("event_date", "pet_id"), model="m1")
HOURLY = TieredTable("anl", "telemetry_summary_hourly", "warm", 5, order=("event_date",))
TABLES = (EVENTS, HOURLY)

FIRST = date(2026, 6, 1)
DAYS = [FIRST + timedelta(days=number) for number in range(8)]
# The data's present lies on the last of eight days: three days of events and five of summaries stay.
AS_OF = datetime(2026, 6, 8, 17)
NOW = datetime(2026, 7, 1)
DUE_EVENTS, DUE_HOURLY = DAYS[:5], DAYS[:3]

SETUP = [
    "create schema if not exists anl",
    """
    create or replace table anl.telemetry_events as
    select
        'e' || i as event_id,
        'c' || (i % 3) as device_id,
        if(i % 7 = 0, null, 'p' || (i % 2)) as pet_id,
        timestamp '2026-06-01 00:00:00' + i * interval 37 minute as event_ts,
        cast(timestamp '2026-06-01 00:00:00' + i * interval 37 minute as date) as event_date,
        timestamp '2026-06-01 00:00:05' + i * interval 37 minute as arrival_ts,
        cast(i * 1.25 as decimal(9, 2)) as pulse_bpm,
        cast(i as double) / 3 as ratio,
        i % 5 = 0 as is_worn
    from range(300) as t(i)
    where timestamp '2026-06-01 00:00:00' + i * interval 37 minute < timestamp '2026-06-09 00:00:00'
    """,
    """
    create or replace table anl.telemetry_summary_hourly as
    select pet_id, date_trunc('hour', event_ts) as hour_ts, event_date, count(*) as event_count
    from anl.telemetry_events
    where pet_id is not null
    group by all
    """,
]

Warehouse = duckdb.DuckDBPyConnection


@pytest.fixture
def con(tmp_path: Path) -> Iterator[Warehouse]:
    with open_warehouse(tmp_path / "w.duckdb") as opened:
        for statement in SETUP:
            opened.execute(statement)
        opened.execute("create schema before")
        for table in TABLES:
            opened.execute(f"create table before.{table.name} as from {table.full_name}")
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "lake")


@pytest.fixture
def move(con: Warehouse, tmp_path: Path) -> Callable[..., RetainReport]:
    def run(store: ObjectStore, only: Sequence[date] | None = None) -> RetainReport:
        return retain(con, store, TABLES, AS_OF, NOW, tmp_path / "scratch", only)

    return run


def warehouse_days(con: Warehouse, table: TieredTable) -> list[date]:
    rows = con.execute(f"select distinct event_date from {table.full_name} order by 1").fetchall()
    return [day for (day,) in rows]


def as_before(con: Warehouse, store: ObjectStore) -> bool:
    """Whether the warehouse and the files of the days it has moved together are what the tables were."""
    problems = find_problems(con, store)
    assert not any(problems.values()), problems
    in_force = load_cold_days(store)
    for table in TABLES:
        moved = con.execute(
            "select event_date from raw.cold_days where table_name = ?", [table.full_name]
        ).fetchall()
        con.execute(f"create or replace table before.whole as from {table.full_name}")
        for (day,) in moved:
            for file in in_force[table.full_name, day].files:
                con.execute(
                    "insert into before.whole select * from read_parquet(?, hive_partitioning = false)",
                    [store.uri(file.key)],
                )
        if compare_tables(con, f"before.{table.name}", con, "before.whole"):
            return False
    return True


def files(store: ObjectStore) -> list[str]:
    return [info.key for info in store.list("cold/")]


def test_days_past_their_limit_move_and_nothing_else(con: Warehouse, store: LocalStore, move: Any) -> None:
    con.execute("checkpoint")
    due = due_days(con, TABLES, AS_OF)
    assert [(one.table.name, one.day) for one in due] == [
        *(("telemetry_events", day) for day in DUE_EVENTS),
        *(("telemetry_summary_hourly", day) for day in DUE_HOURLY),
    ]
    # Events 37 minutes apart: 39 on the first day.
    assert due[0].rows == 39
    assert due[0].bytes > 0
    report = move(store)
    assert report.days == {EVENTS.full_name: DUE_EVENTS, HOURLY.full_name: DUE_HOURLY}
    assert warehouse_days(con, EVENTS) == DAYS[5:]
    assert warehouse_days(con, HOURLY) == DAYS[3:]
    assert len(files(store)) == 8
    assert as_before(con, store)
    again = move(store)
    assert (again.days, again.withdrawn_days, again.removed_files) == ({}, 0, 0)
    assert as_before(con, store)


def test_without_a_present_or_a_table_nothing_is_due(con: Warehouse) -> None:
    assert due_days(con, TABLES, None) == []
    con.execute("drop table anl.telemetry_events")
    assert {one.table for one in due_days(con, TABLES, AS_OF)} == {HOURLY}


def test_a_backfill_moves_its_own_days(con: Warehouse, store: LocalStore, move: Any) -> None:
    report = move(store, [DAYS[1], DAYS[7]])
    assert report.days == {EVENTS.full_name: [DAYS[1]], HOURLY.full_name: [DAYS[1]]}
    assert warehouse_days(con, EVENTS) == [DAYS[0], *DAYS[2:]]


def test_nothing_moves_while_something_waits_to_be_built(
    con: Warehouse, store: LocalStore, move: Any
) -> None:
    con.execute(
        "insert into raw.load_history values"
        " ('s', 0, 0, 1, 'telemetry_events', 'f', 1, 0, 0, 0, [date '2026-06-01'], 1, timestamp '2026-06-08 00:00:00')"
    )
    assert move(store).waiting == "loads wait to be built: build first"
    assert warehouse_days(con, EVENTS) == DAYS
    set_build_mark(con, WAREHOUSE_MARK, 1)
    assert move(store).days[EVENTS.full_name] == DUE_EVENTS


class DeathError(Exception):
    """The process died here."""


class MortalStore(LocalStore):
    """Dies at one of its writes: before it, or when it is done and before anybody hears of it."""

    def __init__(self, root: Path, write: int, when: str) -> None:
        super().__init__(root)
        self.root, self.left, self.when = root, write, when

    def _reached(self, when: str) -> None:
        if self.left == 0 and when == self.when:
            raise DeathError
        if when == "after":
            self.left -= 1

    def put_new(self, key: str, data: bytes) -> None:
        self._reached("before")
        super().put_new(key, data)
        self._reached("after")

    def delete(self, key: str) -> None:
        self._reached("before")
        super().delete(key)
        self._reached("after")


def days_that_came_back(con: Warehouse, store: LocalStore, scratch: Path) -> None:
    """Days 0 to 3 moved; 1 to 3 came back, 2 and 3 with other rows, 3 to stay."""
    retain(con, store, TABLES, AS_OF, NOW, scratch, DAYS[:4])
    for table in TABLES:
        for day in DAYS[1:4]:
            if day in warehouse_days(con, table):
                continue
            restore_day(con, store, table, day, date(2026, 6, 9), scratch)
            if day == DAYS[1]:
                release_day(con, table, day)
    con.execute(f"delete from raw.kept_days where event_date = '{DAYS[2]}'")
    con.execute(f"update anl.telemetry_events set ratio = 7 where event_date in ('{DAYS[2]}', '{DAYS[3]}')")
    con.execute("create or replace table before.telemetry_events as from anl.telemetry_events")
    con.execute(
        "insert into before.telemetry_events select * from read_parquet(?, hive_partitioning = false)",
        [store.uri(load_cold_days(store)[EVENTS.full_name, DAYS[0]].files[0].key)],
    )


@pytest.mark.parametrize("when", ["before", "after"])
def test_whatever_write_a_run_dies_at_the_next_one_finishes(
    con: Warehouse, tmp_path: Path, when: str
) -> None:
    """Every write of a run that moves two changed, one unchanged and two new days, and withdraws one."""
    days_that_came_back(con, LocalStore(tmp_path / "lake"), tmp_path / "scratch")
    con.execute("checkpoint")
    deaths = 0
    for write in range(100):
        root, warehouse = tmp_path / f"lake-{write}", tmp_path / f"{write}.duckdb"
        shutil.copytree(tmp_path / "lake", root)
        shutil.copy(tmp_path / "w.duckdb", warehouse)
        with open_warehouse(warehouse) as copied:
            died = dies_and_is_finished(copied, MortalStore(root, write, when), tmp_path / "scratch")
        deaths += died
        if not died:
            break
    # Day 2: file and statement, day 4: file and statement, day 3 withdrawn, two old files removed.
    assert deaths == 7


def dies_and_is_finished(con: Warehouse, mortal: MortalStore, scratch: Path) -> bool:
    """Run once where every run may die, then calmly; whether the first one died."""
    calm, died = LocalStore(mortal.root), False
    try:
        retain(con, mortal, TABLES, AS_OF, NOW, scratch, None)
    except DeathError:
        died = True
        assert as_before(con, calm)
        retain(con, calm, TABLES, AS_OF, NOW, scratch, None)
    assert as_before(con, calm)
    assert warehouse_days(con, EVENTS) == [DAYS[3], *DAYS[5:]]
    assert warehouse_days(con, HOURLY) == DAYS[3:]
    # Four days of events and three of summaries in one file each; the day that stays has none.
    assert len(files(calm)) == 7
    assert retain(con, calm, TABLES, AS_OF, NOW, scratch, None).days == {}
    return died


def damage(store: LocalStore, key: str) -> None:
    path = Path(store.uri(key))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


class FlippingStore(LocalStore):
    """Stores other bytes than it was given: what a proof is for."""

    def put_new(self, key: str, data: bytes) -> None:
        super().put_new(key, data)
        if key.startswith("cold/"):
            damage(self, key)


def test_a_day_that_does_not_prove_right_stays_and_the_next_run_heals(
    con: Warehouse, store: LocalStore, tmp_path: Path, move: Any
) -> None:
    with pytest.raises(TierProofError, match=r"2026-06-01.*sha256 differs"):
        move(FlippingStore(tmp_path / "lake"))
    assert warehouse_days(con, EVENTS) == DAYS
    assert load_cold_days(store) == {}
    move(store)
    assert as_before(con, store)
    assert warehouse_days(con, EVENTS) == DAYS[5:]


def test_files_with_other_rows_do_not_prove_right(con: Warehouse, store: LocalStore, move: Any) -> None:
    """Well-formed files, of one event less."""

    class LosingStore(LocalStore):
        def get(self, key: str) -> bytes:
            con.execute("insert into anl.telemetry_events select * from anl.telemetry_events limit 1")
            return super().get(key)

    con.execute("delete from anl.telemetry_events where event_date <> '2026-06-01'")
    with pytest.raises(TierProofError, match=r"are not the 40 rows of the table. Nothing was deleted"):
        move(LosingStore(Path(store.url)))
    assert warehouse_days(con, EVENTS) == [FIRST]


def test_damage_to_a_day_that_came_back_gives_it_new_files(
    con: Warehouse, store: LocalStore, tmp_path: Path, move: Any
) -> None:
    move(store)
    restore_day(con, store, EVENTS, FIRST, AS_OF.date(), tmp_path)
    before = load_cold_days(store)[EVENTS.full_name, FIRST]
    damage(store, before.files[0].key)
    report = move(store)
    after = load_cold_days(store)[EVENTS.full_name, FIRST]
    assert (before.n, after.n, report.reused_days) == (1, 2, 0)
    assert as_before(con, store)


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_restored_day_is_what_it_was_and_stays(
    con: Warehouse, tmp_path: Path, move: Any, kind: str, request: pytest.FixtureRequest
) -> None:
    store: ObjectStore = LocalStore(tmp_path / "lake")
    if kind == "s3":
        s3: S3Store = request.getfixturevalue("s3_store")
        store = s3
    move(store)
    until = AS_OF.date() + timedelta(days=1)
    rows = restore_day(con, store, EVENTS, DAYS[1], until, tmp_path)
    assert rows == 39
    day = f"(select * from {{}}.telemetry_events where event_date = date '{DAYS[1]}')"
    assert compare_tables(con, day.format("before"), con, day.format("anl")) == []
    assert restore_day(con, store, EVENTS, DAYS[1], until, tmp_path) == 0
    # It stays until the date, or until it is released; then its files serve again.
    assert move(store).days == {}
    assert release_day(con, EVENTS, DAYS[1])
    assert not release_day(con, EVENTS, DAYS[1])
    report = move(store)
    assert (report.days, report.reused_days, report.written_bytes) == ({EVENTS.full_name: [DAYS[1]]}, 1, 0)
    assert len(files(store)) == 8
    assert find_problems(con, store) == {EVENTS.full_name: [], HOURLY.full_name: []}


def test_a_kept_day_moves_when_its_date_has_come(con: Warehouse, store: LocalStore, tmp_path: Path) -> None:
    retain(con, store, TABLES, AS_OF, NOW, tmp_path)
    restore_day(con, store, EVENTS, FIRST, date(2026, 6, 10), tmp_path)
    assert retain(con, store, TABLES, datetime(2026, 6, 9, 23), NOW, tmp_path).days[EVENTS.full_name] == [
        DAYS[5]
    ]
    later = retain(con, store, TABLES, datetime(2026, 6, 10), NOW, tmp_path)
    assert later.days[EVENTS.full_name] == [FIRST, DAYS[6]]


def test_a_day_that_cannot_be_restored_is_said_so(
    con: Warehouse, store: LocalStore, tmp_path: Path, move: Any
) -> None:
    move(store)
    with pytest.raises(RestoreError, match="no rows of 2025-01-01, in the warehouse or in cold storage"):
        restore_day(con, store, EVENTS, date(2025, 1, 1), AS_OF.date(), tmp_path)
    damage(store, load_cold_days(store)[EVENTS.full_name, FIRST].files[0].key)
    with pytest.raises(TierProofError, match="sha256 differs"):
        restore_day(con, store, EVENTS, FIRST, AS_OF.date(), tmp_path)
    con.execute("alter table anl.telemetry_events add column owner_id varchar")
    with pytest.raises(RestoreError, match="moved with other columns"):
        restore_day(con, store, EVENTS, DAYS[1], AS_OF.date(), tmp_path)
    assert warehouse_days(con, EVENTS) == DAYS[5:]


def test_a_table_without_the_day_does_not_keep_the_others_from_it(
    tmp_path: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path))
    settings = load_settings()
    with open_warehouse(settings.state.warehouse_path) as con:
        for statement in SETUP:
            con.execute(statement)
        con.execute("delete from anl.telemetry_summary_hourly where event_date = '2026-06-01'")
        con.execute("insert into raw.watermark values (timestamp '2026-06-08 17:00:00')")
        retain(con, store, TABLES, AS_OF, NOW, tmp_path)
    assert retaining.restore(settings, store, TABLES, FIRST, keep_days=2) == {EVENTS.full_name: 39}
    with open_warehouse(settings.state.warehouse_path) as con:
        kept = con.execute("select table_name, event_date, kept_until from raw.kept_days").fetchall()
    assert kept == [(EVENTS.full_name, FIRST, date(2026, 6, 10))]
    with pytest.raises(RestoreError, match=r"anl.telemetry_events has no rows of 2025-01-01"):
        retaining.restore(settings, store, TABLES, date(2025, 1, 1), keep_days=2)
    assert retaining.release(settings, TABLES, FIRST) == [EVENTS.full_name]


def test_missing_files_are_found(con: Warehouse, store: LocalStore, move: Any) -> None:
    move(store)
    in_force = load_cold_days(store)
    first, second = (in_force[EVENTS.full_name, day] for day in DAYS[:2])
    store.delete(first.files[0].key)
    path = Path(store.uri(second.files[0].key))
    path.write_bytes(path.read_bytes()[:-1])
    third = in_force[EVENTS.full_name, DAYS[2]]
    put_cold_day(store, msgspec.structs.replace(third, n=2, files=[]))
    assert [problem.split(":")[0] for problem in find_problems(con, store)[EVENTS.full_name]] == [
        "2026-06-01",
        "2026-06-02",
        "2026-06-03",
    ]


def redact(con: Warehouse, store: ObjectStore) -> None:
    """Device c0's first day, in the ledger and out of raw; the day is built again without it."""
    put_redaction(
        store,
        Redaction(
            redaction_id="r1",
            kind=ERASURE,
            reason="12",
            requested_at=NOW,
            deadline=NOW + timedelta(days=30),
            arrivals=[Arrivals("c0", datetime(2026, 6, 1), datetime(2026, 6, 2))],
        ),
    )


def test_redacted_rows_leave_cold_storage(
    con: Warehouse, store: LocalStore, tmp_path: Path, move: Any
) -> None:
    move(store)
    assert cold_leftovers(store, load_redactions(store)) == []
    redact(con, store)
    redactions = load_redactions(store)
    # 39 events of three devices.
    [left] = cold_leftovers(store, redactions)
    assert (left.kind, left.rows) == ("cold", 13)
    with pytest.raises(RestoreError, match="hold rows that a redaction covers"):
        restore_day(con, store, EVENTS, FIRST, AS_OF.date(), tmp_path)
    assert move(store).waiting == "redactions or quarantined rows wait to be applied: load and build first"
    load_pending(con, store, [])
    assert move(store).waiting == "loads wait to be built: build first"
    # What the build does: the whole day without the rows.
    con.execute(
        "insert into anl.telemetry_events select * from before.telemetry_events"
        " where event_date = '2026-06-01' and device_id <> 'c0'"
    )
    con.execute("delete from raw.cold_days where event_date = '2026-06-01'")
    set_build_mark(con, WAREHOUSE_MARK, latest_load_seq(con))
    # Kept in the warehouse or not, the files with the rows go.
    restore_day(con, store, EVENTS, FIRST, AS_OF.date() + timedelta(days=9), tmp_path)
    in_force = load_cold_days(store)
    # Of that day the hourly summary came back, too; here nothing built it.
    assert withdraw_outdated(con, store, TABLES, in_force, NOW) == 2
    move(store)
    assert cold_leftovers(store, redactions) == []
    release_day(con, EVENTS, FIRST)
    move(store)
    assert cold_leftovers(store, redactions) == []
    assert load_cold_days(store)[EVENTS.full_name, FIRST].rows == 26


def test_sums_of_days_in_cold_storage_are_held_against_what_was_moved(
    con: Warehouse, store: LocalStore, move: Any
) -> None:
    move(store)
    redact(con, store)
    redactions = load_redactions(store)
    assert [one.detail for one in warehouse_leftovers(con, redactions) if "count events" in one.detail] == []
    con.execute(
        "insert into anl.telemetry_summary_hourly values ('p0', '2026-06-05 01:00:00', '2026-06-05', 40)"
    )
    [found] = [one for one in warehouse_leftovers(con, redactions) if "count events" in one.detail]
    assert str(found) == "anl.telemetry_summary_hourly: 1 rows that count events which are gone"
