"""Loads into a real DuckDB file: each range once, all of a load or nothing of it."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from lake.landing import Manifest, list_claims, list_manifests
from lake.progress import PartitionSeen, ProgressMark, declare_dead, put_progress
from lake.store import LocalStore, ObjectStore
from warehouse.compare import compare_tables
from warehouse.duckdb.raw import (
    WAREHOUSE_MARK,
    LoadMismatchError,
    WarehouseUnreachableError,
    build_mark,
    data_time,
    dirty_days,
    forget_ranges,
    last_load_started_at,
    latest_load_seq,
    load_history_rows,
    load_pending,
    loaded_keys,
    open_warehouse,
    set_build_mark,
    table_row_counts,
)
from warehouse.reconcile import read_raw_ranges, reconcile

Land = Callable[..., Manifest]


def load(path: Path, store: ObjectStore) -> Any:
    with open_warehouse(path, store) as con:
        return load_pending(con, store, list_manifests(store))


def content(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of raw, ledger included, apart from when it was loaded."""
    with open_warehouse(path, read_only=True) as con:
        tables = table_row_counts(con, "raw")
        return {
            table: con.execute(
                f"select * {'exclude (loaded_at)' if table == 'load_history' else ''} from raw.{table}"
                " order by all"
            ).fetchall()
            for table in tables
        }


def test_rows_and_ledger_come_as_landed(
    store: LocalStore, warehouse_path: Path, land_telemetry: Land, land_clinics: Land
) -> None:
    landed = land_telemetry(store, 0, 5, rejected=2)
    extract = land_clinics(store, "day-1", 3)
    report = load(warehouse_path, store)
    assert report.ranges == 2
    assert report.rows_by_feed == {"clinics": 3, "telemetry_events": 5}
    assert report.event_dates == (date(2026, 6, 1),)
    with open_warehouse(warehouse_path, read_only=True) as con:
        rows = con.execute(
            "select kafka_offset, event_id, stream_id, source_file, ingested_at, payload->>'n'"
            " from raw.telemetry_events order by kafka_offset"
        ).fetchall()
        [ledger] = [row for row in load_history_rows(con) if row["feed"] == "telemetry_events"]
        [loaded_extract] = con.execute("select * from raw.extracts").fetchall()
        present = data_time(con)
    expected = (landed.stream_id, landed.source_file, landed.ingested_at)
    assert rows == [(i, f"e{i:06}", *expected, str(i)) for i in range(5)]
    assert (ledger["start_offset"], ledger["end_offset"], ledger["row_count"]) == (0, 7, 5)
    assert (ledger["rejected_count"], ledger["consent_dropped_count"], ledger["offset_gap_count"]) == (
        2,
        0,
        0,
    )
    assert loaded_extract == (
        "day-1", "clinics", "clinic-crm", extract.stream_id, True, 3, extract.extracted_at, extract.ingested_at,
        extract.extracted_at,
    )  # fmt: skip
    assert present == datetime(2026, 6, 1, 0, 4, 2)


def test_loading_again_brings_nothing(
    store: LocalStore, warehouse_path: Path, land_telemetry: Land, land_clinics: Land
) -> None:
    land_telemetry(store, 0, 5)
    land_clinics(store, "day-1", 3)
    load(warehouse_path, store)
    before = content(warehouse_path)
    report = load(warehouse_path, store)
    assert (report.ranges, report.rows_by_feed, report.event_dates) == (0, {}, ())
    assert report.load_seq == 1
    assert content(warehouse_path) == before


def test_only_what_landed_since_is_loaded(
    store: LocalStore, warehouse_path: Path, land_telemetry: Land
) -> None:
    land_telemetry(store, 0, 5)
    load(warehouse_path, store)
    land_telemetry(store, 5, 4, first_ts=datetime(2026, 6, 2, 23, 58))
    report = load(warehouse_path, store)
    assert (report.load_seq, report.ranges, report.rows_by_feed) == (2, 1, {"telemetry_events": 4})
    assert report.event_dates == (date(2026, 6, 2), date(2026, 6, 3))
    with open_warehouse(warehouse_path, read_only=True) as con:
        assert con.execute("select kafka_offset from raw.telemetry_events order by 1").fetchall() == [
            (i,) for i in range(9)
        ]


def test_a_range_without_rows_is_in_the_ledger(
    store: LocalStore, warehouse_path: Path, land_telemetry: Land
) -> None:
    land_telemetry(store, 0, 0, rejected=3)
    report = load(warehouse_path, store)
    assert (report.ranges, report.event_dates) == (1, ())
    with open_warehouse(warehouse_path, read_only=True) as con:
        raw_ranges, orphans = read_raw_ranges(con)
    result = reconcile(list_claims(store), list_manifests(store), raw_ranges, orphans)
    assert result.findings == ()
    assert (result.raw_rows, result.ledger_ranges) == (0, 1)


def test_a_range_is_loaded_once_whatever_file_brings_it(
    store: LocalStore, warehouse_path: Path, land_telemetry: Land
) -> None:
    landed = land_telemetry(store, 0, 5)
    load(warehouse_path, store)
    before = content(warehouse_path)
    copy = copied(store, landed)
    with open_warehouse(warehouse_path, store) as con:
        assert load_pending(con, store, [copy]).ranges == 0
    assert content(warehouse_path) == before


def test_two_files_of_one_range_in_one_load_bring_it_once(
    store: LocalStore, warehouse_path: Path, land_telemetry: Land
) -> None:
    landed = land_telemetry(store, 0, 5)
    with open_warehouse(warehouse_path, store) as con:
        report = load_pending(con, store, [landed, copied(store, landed)])
        assert table_row_counts(con, "raw")["telemetry_events"] == 5
        assert table_row_counts(con, "raw")["load_history"] == 1
    assert (report.ranges, report.rows_by_feed) == (1, {"telemetry_events": 5})


def copied(store: LocalStore, landed: Manifest) -> Manifest:
    """The same range under another path."""
    key = landed.source_file.replace("landing/", "landing/moved-")
    store.put_new(key, store.get(landed.source_file))
    return msgspec.structs.replace(landed, source_file=key)


@pytest.mark.parametrize("said", [4, 6])
def test_a_file_that_differs_from_its_manifest_loads_nothing(
    store: LocalStore, warehouse_path: Path, land_telemetry: Land, land_clinics: Land, said: int
) -> None:
    land_telemetry(store, 0, 5)
    load(warehouse_path, store)
    before = content(warehouse_path)
    land_clinics(store, "day-1", 3)
    wrong = msgspec.structs.replace(land_telemetry(store, 5, 5), rows=said)
    good = [m for m in list_manifests(store) if m.range_key != wrong.range_key]
    with (
        open_warehouse(warehouse_path, store) as con,
        pytest.raises(
            LoadMismatchError, match=rf"{re.escape(wrong.source_file)} on hold 5 rows.* say {said}"
        ),
    ):
        load_pending(con, store, [*good, wrong])
    assert content(warehouse_path) == before
    # The connection that failed is of use again, and so is the range once it is right.
    assert load(warehouse_path, store).rows_by_feed == {"clinics": 3, "telemetry_events": 5}


@pytest.mark.parametrize("damage", ["gone", "cut short"])
def test_a_landed_file_that_cannot_be_read_is_named(
    store: LocalStore, warehouse_path: Path, land_telemetry: Land, damage: str
) -> None:
    land_telemetry(store, 0, 5)
    load(warehouse_path, store)
    before = content(warehouse_path)
    landed = land_telemetry(store, 5, 5)
    data = store.get(landed.source_file)
    store.delete(landed.source_file)
    if damage == "cut short":
        store.put_new(landed.source_file, data[: len(data) // 2])
    with pytest.raises(LoadMismatchError, match=re.escape(landed.source_file)):
        load(warehouse_path, store)
    assert content(warehouse_path) == before


KILLED_LOAD = """
import os, signal, sys
from pathlib import Path
from lake.landing import list_manifests
from lake.store import LocalStore
from warehouse.duckdb import raw as duckdb_raw

warehouse, lake, moment = sys.argv[1:]
store = LocalStore(Path(lake))

def die(text):
    os.kill(os.getpid(), signal.SIGKILL)

def record_and_die(*arguments):
    recorded(*arguments)
    die("")

if moment == "before commit":
    recorded = duckdb_raw._record_loads
    duckdb_raw._record_loads = record_and_die
    die_now = lambda text: None
else:
    die_now = lambda text: die(text) if text.startswith(moment) else None
with duckdb_raw.open_warehouse(Path(warehouse), store) as con:
    duckdb_raw.load_pending(con, store, list_manifests(store), progress=die_now)
"""


@pytest.mark.parametrize(
    "moment", [pytest.param("raw.clinics", marks=pytest.mark.full), "raw.telemetry_events", "before commit"]
)
def test_a_load_killed_in_the_middle_is_loaded_by_the_next(
    store: LocalStore,
    warehouse_path: Path,
    tmp_path: Path,
    land_telemetry: Land,
    land_clinics: Land,
    moment: str,
) -> None:
    land_telemetry(store, 0, 5)
    load(warehouse_path, store)
    land_telemetry(store, 5, 4, rejected=1)
    land_clinics(store, "day-1", 3)
    before = content(warehouse_path)
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED_LOAD), str(warehouse_path), store.url, moment],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert content(warehouse_path) == before
    load(warehouse_path, store)
    undisturbed = tmp_path / "undisturbed.duckdb"
    load(undisturbed, store)
    with duckdb.connect(str(warehouse_path)) as con, duckdb.connect(str(undisturbed)) as other:
        for table in table_row_counts(other, "raw"):
            left_out = ["loaded_at", "load_seq"] if table == "load_history" else []
            assert compare_tables(con, f"raw.{table}", other, f"raw.{table}", exclude=left_out) == []


def test_another_process_that_holds_the_file_is_an_error_with_its_name(
    store: LocalStore, warehouse_path: Path
) -> None:
    with open_warehouse(warehouse_path, store):
        pass
    code = (
        "import sys, duckdb; con = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(warehouse_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with (
            pytest.raises(WarehouseUnreachableError, match=f"{warehouse_path}.*PETWELLNESS_HOME"),
            open_warehouse(warehouse_path),
        ):
            pass
    finally:
        holder.communicate(b"")
    with open_warehouse(warehouse_path) as con:
        assert latest_load_seq(con) == 0


def test_a_warehouse_that_is_no_database_is_an_error_with_its_name(warehouse_path: Path) -> None:
    warehouse_path.write_bytes(b"not a database" * 100)
    with pytest.raises(WarehouseUnreachableError, match=str(warehouse_path)), open_warehouse(warehouse_path):
        pass


def test_the_connection_is_closed_when_its_user_fails(warehouse_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_warehouse(warehouse_path):
        raise ZeroDivisionError
    # Another configuration of the same file is refused while a connection is left open.
    with open_warehouse(warehouse_path, read_only=True) as con:
        assert latest_load_seq(con) == 0


def test_dirty_days_are_those_loaded_since_the_mark(
    store: LocalStore, warehouse_path: Path, land_telemetry: Land, land_clinics: Land
) -> None:
    land_telemetry(store, 0, 5)
    load(warehouse_path, store)
    with open_warehouse(warehouse_path) as con:
        assert build_mark(con, WAREHOUSE_MARK) == 0
        assert dirty_days(con, 0) == [date(2026, 6, 1)]
        set_build_mark(con, WAREHOUSE_MARK, latest_load_seq(con))
    land_telemetry(store, 5, 4, first_ts=datetime(2026, 6, 2, 23, 58))
    land_clinics(store, "day-1", 3)
    load(warehouse_path, store)
    with open_warehouse(warehouse_path) as con:
        mark = build_mark(con, WAREHOUSE_MARK)
        assert mark == 1
        assert dirty_days(con, mark) == [date(2026, 6, 2), date(2026, 6, 3)]
        assert dirty_days(con, 0) == [date(2026, 6, 1), date(2026, 6, 2), date(2026, 6, 3)]
        assert build_mark(con, "published") == 0
        set_build_mark(con, WAREHOUSE_MARK, latest_load_seq(con))
        assert build_mark(con, WAREHOUSE_MARK) == 2
        assert con.execute("select count(*) from raw.build_marks").fetchone() == (1,)
        assert dirty_days(con, build_mark(con, WAREHOUSE_MARK)) == []


def test_forgetting_a_range_makes_models_of_records_count_as_never_built(
    store: LocalStore, warehouse_path: Path, land_clinics: Land
) -> None:
    landed = land_clinics(store, "day-1", 3)
    load(warehouse_path, store)
    with open_warehouse(warehouse_path) as con:
        set_build_mark(con, WAREHOUSE_MARK, 1)
        set_build_mark(con, "cur.clinics", 1)
        assert forget_ranges(con, [landed]) == 3
        assert build_mark(con, WAREHOUSE_MARK) == 1
        assert build_mark(con, "cur.clinics") == 0


def present(path: Path) -> datetime | None:
    with open_warehouse(path, read_only=True) as con:
        return data_time(con)


def test_the_present_waits_for_a_partition_that_lags_and_never_goes_back(
    store: LocalStore, warehouse_path: Path, land_telemetry: Land, tmp_path: Path
) -> None:
    early, late = datetime(2026, 6, 1, 0, 4, 2), datetime(2026, 6, 2, 0, 4, 2)
    land_telemetry(store, 0, 5, partition=0)
    land_telemetry(store, 0, 5, partition=1)
    load(warehouse_path, store)
    assert present(warehouse_path) == early
    land_telemetry(store, 5, 5, partition=0, first_ts=datetime(2026, 6, 2))
    load(warehouse_path, store)
    assert present(warehouse_path) == early  # Partition 1 may lag.
    at_end = PartitionSeen(stream_id="cluster.telemetry.topic1", partition=1, end=5, at=datetime(2026, 6, 5))
    put_progress(store, ProgressMark(marked_at=datetime(2026, 6, 5), marked_by="test", partitions=[at_end]))
    load(warehouse_path, store)
    assert present(warehouse_path) == late  # It was seen to be at its end.
    land_telemetry(store, 0, 5, partition=2)
    load(warehouse_path, store)
    assert present(warehouse_path) == late
    rebuilt = tmp_path / "rebuilt.duckdb"
    declare_dead(store, ["cluster.telemetry.topic0"], "deleted", "test", datetime(2026, 6, 6))
    load(rebuilt, store)
    assert present(rebuilt) == early  # As far as the lake knows partition 2, which joined late, may lag.


def test_a_warehouse_that_followed_no_partition_takes_them_up_from_the_lake(
    store: LocalStore, warehouse_path: Path, land_telemetry: Land
) -> None:
    land_telemetry(store, 0, 5)
    load(warehouse_path, store)
    followed = content(warehouse_path)
    with open_warehouse(warehouse_path) as con:
        con.execute("delete from raw.partition_progress")
        con.execute("delete from raw.watermark")
    load(warehouse_path, store)
    assert content(warehouse_path) == followed


def test_a_message_stamped_years_ahead_moves_the_present_to_its_claim_at_most(
    store: LocalStore, warehouse_path: Path, land_telemetry: Land
) -> None:
    claimed_at = datetime(2026, 6, 5, 12)
    land_telemetry(store, 0, 1, first_ts=datetime(2036, 1, 1), claimed_at=claimed_at)
    load(warehouse_path, store)
    assert present(warehouse_path) == claimed_at


def test_an_empty_warehouse_has_no_present_and_no_loads(warehouse_path: Path) -> None:
    with open_warehouse(warehouse_path) as con:
        assert data_time(con) is None
        assert last_load_started_at(con) is None
        assert loaded_keys(con) == set()
        assert latest_load_seq(con) == 0


def test_reconciling_what_was_loaded_finds_only_what_was_broken(
    store: LocalStore, warehouse_path: Path, land_telemetry: Land, land_clinics: Land
) -> None:
    land_telemetry(store, 0, 5, rejected=1)
    land_telemetry(store, 6, 4)
    land_telemetry(store, 0, 3, partition=1)
    land_clinics(store, "day-1", 3)
    load(warehouse_path, store)

    def rules(*statements: str) -> set[str]:
        """Rules found broken after `statements`, which are undone."""
        with open_warehouse(warehouse_path) as con:
            con.execute("begin")
            for statement in statements:
                con.execute(statement)
            raw_ranges, orphans = read_raw_ranges(con)
            con.execute("rollback")
        result = reconcile(list_claims(store), list_manifests(store), raw_ranges, orphans)
        return {finding.rule for finding in result.findings}

    assert rules() == set()
    telemetry = "raw.telemetry_events"
    assert rules(f"delete from {telemetry} where kafka_offset = 7") == {"rows"}
    assert rules("delete from raw.clinics") == {"rows"}
    assert rules(f"insert into {telemetry} from {telemetry} where kafka_offset = 7") == {
        "rows",
        "offset twice",
    }
    # A row moved onto its neighbour leaves the number of rows right.
    assert rules(f"update {telemetry} set kafka_offset = 8 where kafka_offset = 7") == {"offset twice"}
    assert rules(
        f"insert into {telemetry} select * replace (source_file || 'x' as source_file)"
        f" from {telemetry} where kafka_offset = 7"
    ) == {"rows", "offset twice"}
    assert rules("delete from raw.load_history where start_offset = 6") == {
        "manifest not loaded",
        "raw rows outside the ledger",
    }
    assert rules(f"update {telemetry} set stream_id = 'other' where kafka_partition = 1") == {
        "rows",
        "raw rows outside the ledger",
    }
    assert rules("update raw.load_history set end_offset = 11 where start_offset = 6") == {"range end"}


def test_marks_of_a_dead_process_do_not_leave_a_lock(warehouse_path: Path) -> None:
    code = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from warehouse.duckdb.raw import open_warehouse, set_build_mark
        with open_warehouse(Path(sys.argv[1])) as con:
            set_build_mark(con, "warehouse", 3)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    killed = subprocess.run([sys.executable, "-c", code, str(warehouse_path)], check=False, env=os.environ)
    assert killed.returncode == -signal.SIGKILL
    with open_warehouse(warehouse_path) as con:
        assert build_mark(con, WAREHOUSE_MARK) == 3
