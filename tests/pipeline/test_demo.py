"""The whole platform on a small fleet: what came out is what was planted, again and again."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rebuilt import as_rebuilt

from contracts.consent import AnalyticsDefault
from petwellness_orchestration.cli.planted import KINDS, compare
from warehouse.compare import compare_tables

Petwellness = Callable[..., Any]

LAYERS = ("stg", "cur", "anl", "ml")


@pytest.fixture(scope="module")
def summary(demo_state: Any) -> dict[str, Any]:
    assert demo_state.returncode == 0, demo_state.stdout[-3000:] + demo_state.stderr[-3000:]
    found: dict[str, Any] = json.loads((demo_state.home / "demo_summary.json").read_text())
    return found


@pytest.fixture(scope="module")
def truth(demo_state: Any, summary: dict[str, Any]) -> dict[str, Any]:
    """Totals that the simulator planted."""
    total: dict[str, Any] = json.loads((demo_state.home / "truth" / "truth.json").read_text())["total"]
    return total


@pytest.fixture(scope="module")
def warehouse(demo_state: Any, summary: dict[str, Any]) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(str(demo_state.home / "warehouse.duckdb"), read_only=True)


def tables(con: duckdb.DuckDBPyConnection, *layers: str) -> list[str]:
    return [
        row[0]
        for row in con.execute(
            "select table_schema || '.' || table_name from information_schema.tables"
            " where table_schema = any(?) and table_type = 'BASE TABLE' order by 1",
            [list(layers)],
        ).fetchall()
    ]


def state_of(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file below a folder: time of its last change and digest."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_demo_passes_and_shows_its_tables(demo_state: Any, summary: dict[str, Any]) -> None:
    assert summary["passed"] is True
    assert summary["checks"]["failed"] == 0
    assert summary["checks"]["passed"] > 50
    for heading in ("Lake", "Warehouse", "Planted by the simulator", "Checks:", "Model", "Time"):
        assert heading in demo_state.stdout
    assert "(differs)" not in demo_state.stdout
    assert "Result: passed" in demo_state.stdout
    assert demo_state.stderr == ""


def test_the_summary_has_what_was_planted(summary: dict[str, Any], truth: dict[str, Any]) -> None:
    lake, found = summary["lake"], summary["warehouse"]
    assert summary["truth"] == truth
    # Small as it is, the fleet has every kind of fault.
    assert min(truth["consent_dropped"], truth["duplicates"], truth["conflicts"], truth["late"]) > 0
    assert len(truth["rejected"]) >= 5
    assert lake["messages"] == truth["messages"]
    assert lake["rejects_by_reason"] == truth["rejected"]
    assert lake["consent_dropped"] == truth["consent_dropped"]
    assert lake["consent_dropped_by_reason"] == {"analytics_opt_out": truth["consent_dropped"]}
    assert lake["telemetry_rows"] == truth["landed"]
    assert lake["offset_gaps"] == 0
    assert found["duplicates_set_aside"] == truth["duplicates"] + truth["conflicts"]
    assert found["event_conflicts"] == truth["conflicts"]
    assert found["rows_by_table"]["stg.telemetry_events"] == truth["distinct"]
    assert found["rows_by_table"]["anl.telemetry_events"] == truth["distinct"]
    assert [step["unexplained"] for step in found["layer_steps"]] == [0, 0, 0, 0]


def test_every_kind_that_was_planted_is_compared_and_was_found(summary: dict[str, Any]) -> None:
    compared = {one["name"]: one for one in summary["planted"]}
    assert {kind.name for kind in KINDS} < set(compared)
    assert all(one["planted"] == one["found"] > 0 for one in compared.values())
    assert [one["differing"] for one in compared.values()] == [0] * len(compared)


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("events_per_device_day", "distinct events, by collar and day"),
        ("ambiguous_spans", "events in spans that two pets claim"),
        ("irregular_days", "events of collars of irregular cadence"),
        ("missing_sensors", "events of collars without a sensor"),
        ("listed_versions", "versions of pets absent from complete extracts"),
        ("set_aside_records", "records repeated, contradicted or of a wrong clock"),
        ("silent_consents", "consent of owners whose records leave flags out"),
        ("superseded_features", "values of superseded features, kept"),
    ],
)
def test_another_truth_is_not_what_was_found(
    demo_state: Any, warehouse: duckdb.DuckDBPyConnection, table: str, name: str
) -> None:
    """Of the built tables: one planted row less, and one with another content, is told of each kind and of no other."""
    truth = {path.stem: pq.read_table(path) for path in (demo_state.home / "truth").glob("*.parquet")}
    rows = truth[table].to_pylist()
    fewer = rows[1:]
    # Whose flag it is decides which rows of the consents are looked at.
    other = [*rows[:-1], {key: altered(key, value) for key, value in rows[-1].items()}]
    for tampered in (other,) if table == "silent_consents" else (fewer, other):
        wrong = truth | {table: pa.Table.from_pylist(tampered, schema=truth[table].schema)}
        found = compare(warehouse.cursor(), wrong, AnalyticsDefault.ALLOW)
        assert [one.name for one in found if one.differing] == [name]


def altered(key: str, value: Any) -> Any:
    """A flag said the other way (unsaid is no), a count or value that is larger, a version that is deleted or not."""
    if key in ("last_said", "is_deleted"):
        return not value
    return value + 1 if key in ("events", "records", "value") else value


def test_the_summary_says_what_files_and_tables_hold(
    demo_state: Any, summary: dict[str, Any], warehouse: duckdb.DuckDBPyConnection
) -> None:
    landed = list((demo_state.home / "lake" / "landing").rglob("*.parquet"))
    assert summary["lake"]["files"] == len(landed)
    assert summary["lake"]["bytes"] == sum(path.stat().st_size for path in landed)
    for table, rows in summary["warehouse"]["rows_by_table"].items():
        assert warehouse.execute(f"select count(*) from {table}").fetchone() == (rows,), table
    for layer, rows in summary["warehouse"]["rows_by_layer"].items():
        of_layer = {
            t: n for t, n in summary["warehouse"]["rows_by_table"].items() if t.startswith(f"{layer}.")
        }
        assert rows == sum(of_layer.values())
    stages = summary["stage_seconds"]
    assert sum(s for name, s in stages.items() if name != "total") == pytest.approx(stages["total"], abs=1)


def test_events_by_device_and_day_are_those_planted(
    demo_state: Any, warehouse: duckdb.DuckDBPyConnection
) -> None:
    planted = demo_state.home / "truth" / "events_per_device_day.parquet"
    found = "select device_id, event_date, count(*) from anl.telemetry_events group by all"
    expected = f"select device_id, event_date, events from '{planted}'"
    assert warehouse.execute(f"({expected}) except ({found})").fetchall() == []
    assert warehouse.execute(f"({found}) except ({expected})").fetchall() == []
    assert warehouse.execute(f"select count(*) from '{planted}'").fetchall() > [(12,)]


@pytest.mark.parametrize(
    ("table", "feed", "key"),
    [
        ("cur.owners", "owners", "owner_id"),
        ("cur.pets", "pets", "pet_id"),
        ("cur.clinic_visits", "clinic_visits", "visit_id"),
    ],
)
def test_histories_have_the_versions_planted(
    demo_state: Any, warehouse: duckdb.DuckDBPyConnection, table: str, feed: str, key: str
) -> None:
    planted = demo_state.home / "truth" / "histories.parquet"
    expected = warehouse.execute(
        f"select business_key, versions, is_deleted from '{planted}' where feed = '{feed}' order by 1"
    ).fetchall()
    found = warehouse.execute(
        f"select {key}, count(*), bool_or(is_deleted) filter (is_current) from {table} group by all order by 1"
    ).fetchall()
    assert found == expected
    assert any(versions > 1 for _, versions, _ in expected), f"nothing of {feed} has a history"
    overlaps = warehouse.execute(
        f"select count(*) from (select valid_to is distinct from"
        f" lead(valid_from) over (partition by {key} order by valid_from) as broken from {table}) where broken"
    ).fetchone()
    assert overlaps == (0,)


def test_the_pet_of_an_event_is_that_of_its_time(
    demo_state: Any, warehouse: duckdb.DuckDBPyConnection, truth: dict[str, Any]
) -> None:
    worn = demo_state.home / "truth" / "assignments.parquet"
    wrong = warehouse.execute(
        f"""
        select count(*) filter (e.pet_id <> coalesce(a.pet_id, 'unknown')), count(*), count(distinct e.pet_id),
            count(*) filter (e.pet_id = 'unknown')
        from (from anl.telemetry_events where pet_resolution <> 'ambiguous') e
        left join '{worn}' a
            on a.device_id = e.device_id and e.event_ts >= a.assigned_from
            and e.event_ts < coalesce(a.assigned_to, timestamp '9999-12-31')
        """
    ).fetchone()
    assert wrong is not None
    assert wrong[:2] == (0, truth["distinct"] - truth["ambiguous"])
    assert wrong[2] > 2
    assert wrong[3] == truth["unassigned"]
    moved = warehouse.execute(
        "select count(*) from (select device_id from anl.telemetry_events where pet_id <> 'unknown'"
        " group by device_id having count(distinct pet_id) > 1)"
    ).fetchone()
    assert moved is not None
    assert moved[0] > 0, "no collar moved between pets, so the join was not put to the test"


def test_documents_that_wait_for_a_person_are_those_planted(
    demo_state: Any, warehouse: duckdb.DuckDBPyConnection
) -> None:
    planted = demo_state.home / "truth" / "documents.parquet"
    expected = warehouse.execute(
        f"select document_id from '{planted}' where is_doubtful and review_status = 'pending' order by 1"
    ).fetchall()
    found = warehouse.execute("select document_id from anl.documents_to_review order by 1").fetchall()
    assert found == expected
    assert found
    assert warehouse.execute("select count(*) from cur.visit_documents").fetchone() == (
        warehouse.execute(f"select count(*) from '{planted}'").fetchone()
    )


def test_engagement_of_who_allows_analytics_is_that_planted(
    demo_state: Any, warehouse: duckdb.DuckDBPyConnection
) -> None:
    truth = demo_state.home / "truth"
    expected = f"""
        select owner_id, event_date, sum(contact_count) filter (action = 'session'),
            sum(contact_count) filter (action = 'sent'), sum(contact_count) filter (action = 'opened'),
            sum(contact_count) filter (action = 'clicked'), sum(contact_count) filter (action = 'booked'),
            sum(duration_s) filter (action = 'session')
        from '{truth}/engagement.parquet'
        where owner_id not in (select owner_id from '{truth}/opt_outs.parquet')
        group by all order by 1, 2
    """
    found = f"""
        select owner_id, event_date, nullif(session_count, 0), nullif(sent_count, 0), nullif(opened_count, 0),
            nullif(clicked_count, 0), nullif(booking_count, 0), if(session_count > 0, session_s, null)
        from anl.owner_engagement
        where owner_id not in (select owner_id from '{truth}/opt_outs.parquet')
            and session_count + sent_count + opened_count + clicked_count + booking_count + call_count > 0
        order by 1, 2
    """
    assert warehouse.execute(found).fetchall() == warehouse.execute(expected).fetchall()
    refusing = warehouse.execute(
        f"select count(*) from anl.owner_engagement where owner_id in"
        f" (select owner_id from '{truth}/opt_outs.parquet' where to_ts is null)"
    ).fetchone()
    assert refusing == (0,)


def test_every_day_with_events_is_a_materialized_partition(
    demo_state: Any, warehouse: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """One run rebuilt all days; the UI has to show each of them, not just the run's own partition."""
    import dagster as dg

    days = warehouse.execute("select distinct event_date from anl.telemetry_events order by 1").fetchall()
    shutil.copytree(demo_state.home / "dagster", tmp_path / "dagster")
    with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:
        for key in (["stg", "telemetry_events"], ["anl", "telemetry_events"], ["anl", "daily_activity"]):
            materialized = instance.get_materialized_partitions(dg.AssetKey(key))
            assert {day.isoformat() for (day,) in days} <= set(materialized), key
            assert len(materialized) <= len(days) + 1, key


def test_the_published_copy_equals_the_warehouse(
    demo_state: Any, warehouse: duckdb.DuckDBPyConnection
) -> None:
    with duckdb.connect(str(demo_state.home / "published" / "petwellness.duckdb"), read_only=True) as copy:
        views = [
            row[0]
            for row in copy.execute(
                "select schema_name || '.' || view_name from duckdb_views() where not internal order by 1"
            ).fetchall()
        ]
        assert {view.split(".")[0] for view in views} == {"cur", "anl", "ml"}
        assert {"anl.telemetry_events", "anl.visit_risk_scores", "cur.owners", "ml.computed_features"} <= set(
            views
        )
        for view in views:
            columns = [row[0] for row in copy.execute(f"describe {view}").fetchall()]
            left_out = [
                row[0] for row in warehouse.execute(f"describe {view}").fetchall() if row[0] not in columns
            ]
            with duckdb.connect() as con:
                con.execute(f"attach '{demo_state.home}/warehouse.duckdb' as w (read_only)")
                con.execute(f"attach '{demo_state.home}/published/petwellness.duckdb' as p (read_only)")
                listed = ", ".join(columns)
                differs = con.execute(
                    f"select count(*) from ((select {listed} from w.{view} except all select {listed} from p.{view})"
                    f" union all (select {listed} from p.{view} except all select {listed} from w.{view}))"
                ).fetchone()
            assert differs == (0,), view
            assert bool(left_out) == (view in ("cur.owners", "cur.pets", "cur.visit_documents")), (
                view,
                left_out,
            )


def test_no_personal_data_is_published(demo_state: Any, warehouse: duckdb.DuckDBPyConnection) -> None:
    """Every value of raw's owners that identifies a person, looked for in every published text."""
    personal = {
        value
        for row in warehouse.execute(
            "select name, contact_phone, contact_email, address from raw.owners"
        ).fetchall()
        for value in row
        if value
    }
    assert len(personal) > 40
    # The words of names and streets alone are ordinary; whole values are not.
    published = [*(demo_state.home / "published").rglob("*.parquet")]
    assert published
    con = duckdb.connect()
    for path in published:
        texts = [
            row[0]
            for row in con.execute(
                "select column_name from (describe select * from read_parquet(?, hive_partitioning = false))"
                " where column_type not in ('TIMESTAMP', 'DATE', 'BIGINT', 'INTEGER', 'DOUBLE', 'BOOLEAN')"
                " and not starts_with(column_type, 'DECIMAL')",
                [str(path)],
            ).fetchall()
        ]
        for column in texts:
            values = {
                str(row[0])
                for row in con.execute(
                    f'select distinct "{column}" from read_parquet(?, hive_partitioning = false)', [str(path)]
                ).fetchall()
            }
            assert not personal & values, (path.name, column)
            joined = "\n".join(values)
            assert "@" not in joined, (path.name, column)
    # The same scan sees them in the warehouse, so it would have seen them here.
    assert personal & {row[0] for row in warehouse.execute("select contact_email from cur.owners").fetchall()}


def test_the_second_demo_changes_nothing_and_says_so(
    demo_state: Any, summary: dict[str, Any], petwellness: Petwellness
) -> None:
    before = state_of(demo_state.home)
    again = petwellness("demo", env=demo_state.environment)
    assert again.returncode == 0, again.stderr
    assert "nothing to do: same input, same code, same lake; nothing was published or changed" in again.stdout
    assert "Result: passed" in again.stdout
    # Nor was there a run of the graph: it would stand in Dagster's storage.
    assert state_of(demo_state.home) == before


@pytest.fixture(scope="module")
def copied_home(
    demo_state: Any, summary: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Copies of the undisturbed state to break or rebuild."""

    def copy(name: str) -> Path:
        home = tmp_path_factory.mktemp(name) / "home"
        shutil.copytree(demo_state.home, home, ignore=shutil.ignore_patterns("dagster", "dbt", "published"))
        return home

    return copy


def test_rebuild_only_says_what_it_would_do(
    demo_state: Any, summary: dict[str, Any], petwellness: Petwellness
) -> None:
    before = state_of(demo_state.home)
    asked = petwellness("rebuild", env=demo_state.environment)
    assert asked.returncode == 0
    assert "nothing was changed; add --yes to do it" in asked.stdout
    assert str(demo_state.home / "warehouse.duckdb") in asked.stdout
    assert state_of(demo_state.home) == before


@pytest.mark.full  # The same after an erasure, which has more to keep apart, is in test_erasure.py.
def test_a_rebuild_from_the_lake_gives_the_same_tables(
    demo_state: Any,
    warehouse: duckdb.DuckDBPyConnection,
    copied_home: Callable[[str], Path],
    small_fleet_environment: Callable[..., dict[str, str]],
    petwellness: Petwellness,
) -> None:
    home = copied_home("rebuilt")
    with duckdb.connect(str(home / "warehouse.duckdb")) as con:
        con.execute("delete from anl.telemetry_events where event_date = date '2026-06-02'")
    rebuilt = petwellness("rebuild", "--yes", env=small_fleet_environment(home))
    assert rebuilt.returncode == 0, rebuilt.stdout[-2000:] + rebuilt.stderr
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        compared = tables(warehouse, *LAYERS)
        # Scores are the model's: a rebuild neither trains nor scores.
        assert set(compared) - set(tables(con, *LAYERS)) <= {"anl.visit_risk_scores"}
        for table in tables(con, *LAYERS):
            assert compare_tables(con, as_rebuilt(table), warehouse, as_rebuilt(table)) == [], table
        for table in tables(con, "raw"):
            left_out = ["loaded_at"] if table == "raw.load_history" else []
            assert compare_tables(con, table, warehouse, table, exclude=left_out) == [], table


@pytest.mark.full  # The same damage, made good by a build that honours an erasure, too, is in test_erasure.py.
def test_tables_damaged_by_hand_come_back_as_they_were(
    warehouse: duckdb.DuckDBPyConnection,
    copied_home: Callable[[str], Path],
    small_fleet_environment: Callable[..., dict[str, str]],
    petwellness: Petwellness,
) -> None:
    """docs/runbooks/recovery.md: a row too many deleted, a column overwritten, a table dropped, raw emptied."""
    home = copied_home("recovered")
    environment = small_fleet_environment(home)
    with duckdb.connect(str(home / "warehouse.duckdb")) as con:
        con.execute("delete from cur.owners where owner_id = (select min(owner_id) from cur.owners)")
        con.execute("update anl.daily_activity set pulse_bpm_mean = 80")
        con.execute("drop table anl.clinic_kpis")
        con.execute("delete from raw.telemetry_events where event_ts < timestamp '2026-06-02'")
    for command in (("reload", "--yes"), ("build", "--full-refresh")):
        done = petwellness(*command, env=environment)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        compared = tables(con, *LAYERS)
        assert "anl.clinic_kpis" in compared
        for table in compared:
            assert compare_tables(con, as_rebuilt(table), warehouse, as_rebuilt(table)) == [], table
        assert compare_tables(con, "raw.telemetry_events", warehouse, "raw.telemetry_events") == []


def test_rows_added_behind_the_ledger_stop_the_run(
    copied_home: Callable[[str], Path],
    small_fleet_environment: Callable[..., dict[str, str]],
    petwellness: Petwellness,
) -> None:
    home = copied_home("damaged")
    with duckdb.connect(str(home / "warehouse.duckdb")) as con:
        con.execute("insert into raw.owners from raw.owners limit 1")
    loaded = petwellness("load", env=small_fleet_environment(home))
    assert loaded.returncode == 1
    assert "check raw/load_history:lake_and_raw_reconcile failed" in loaded.stdout
    assert "Traceback" not in loaded.stderr
    assert "lake_and_raw_reconcile" in loaded.stderr


def test_checks_of_everything_find_what_happened_to_an_older_day(
    copied_home: Callable[[str], Path],
    small_fleet_environment: Callable[..., dict[str, str]],
    petwellness: Petwellness,
) -> None:
    home = copied_home("changed_by_hand")
    with duckdb.connect(str(home / "warehouse.duckdb")) as con:
        con.execute("update anl.daily_activity set pulse_bpm_mean = 900 where event_date = date '2026-06-01'")
        con.execute(
            "insert into stg.telemetry_events"
            " from stg.telemetry_events where event_date = date '2026-06-01' limit 1"
        )
        # The last build was about another day, so nothing looks at this one by itself.
        con.execute("delete from raw.rebuilt_days")
        con.execute("insert into raw.rebuilt_days values ('anl.daily_activity', date '2026-06-02', 99)")
    checked = petwellness("check", env=small_fleet_environment(home))
    assert checked.returncode == 1
    assert "check anl/daily_activity:values_in_range failed" in checked.stdout
    assert "check stg/telemetry_events:stg_telemetry_events_key_is_unique failed" in checked.stdout
    assert "Traceback" not in checked.stderr


def test_the_demo_fails_when_a_blocking_check_does(
    copied_home: Callable[[str], Path],
    small_fleet_environment: Callable[..., dict[str, str]],
    petwellness: Petwellness,
) -> None:
    home = copied_home("failing")
    (home / "demo_summary.json").unlink()
    with duckdb.connect(str(home / "warehouse.duckdb")) as con:
        con.execute("delete from raw.telemetry_events where kafka_offset = 3")
    failed = petwellness("demo", env=small_fleet_environment(home))
    assert failed.returncode == 1
    summary = json.loads((home / "demo_summary.json").read_text())
    assert summary["passed"] is False
    [named] = [c for c in summary["checks"]["named"] if c["blocking"] and c["status"] == "failed"]
    assert named["check"] == "raw/load_history:lake_and_raw_reconcile"
    assert "Result: FAILED" in failed.stdout
    # Nothing below raw was touched.
    assert "dbt build and tests" not in summary["stage_seconds"]
    assert not (home / "published").exists()
