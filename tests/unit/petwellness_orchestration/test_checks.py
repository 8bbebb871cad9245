"""Thresholds by Great Expectations and the checks over them, on small tables."""

import inspect
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pytest

from petwellness_orchestration.defs.quality import checks
from petwellness_orchestration.defs.warehouse.partitions import ALL_TAGS
from petwellness_orchestration.expectations import DAILY_ACTIVITY_RANGES, Range, validate
from petwellness_orchestration.resources import PlatformResource
from warehouse.duckdb.raw import open_warehouse

Holding = Callable[..., PlatformResource]


@pytest.fixture
def holding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Holding:
    """The platform over a warehouse made by SQL statements."""
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path))

    def make(*statements: str) -> PlatformResource:
        with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as con:
            con.execute("create schema anl")
            for statement in statements:
                con.execute(statement)
        return PlatformResource()

    return make


def evaluated(
    check: Any, platform: PlatformResource, tags: dict[str, str] | None = None
) -> tuple[dg.AssetCheckResult, dict[str, Any]]:
    """What a check says in a run with these tags. Dagster's own context for direct calls has no run."""
    function = check.op.compute_fn.decorated_fn
    run = SimpleNamespace(tags=tags or {}, asset_selection=None, asset_check_selection=None)
    context = SimpleNamespace(run=run)
    takes_context = "context" in inspect.signature(function).parameters
    result = function(context, platform) if takes_context else function(platform)
    assert isinstance(result, dg.AssetCheckResult)
    return result, {name: value.value for name, value in result.metadata.items()}


def test_values_within_their_range_pass_and_nulls_are_not_judged() -> None:
    frame = pd.DataFrame({"pulse": [30.0, 300.0, None], "steps": [0, 1, 2]})
    pulse, steps = validate(frame, [Range("pulse", 30, 300), Range("steps", 0, None)])
    assert (pulse.judged, pulse.outside, pulse.passed, pulse.examples) == (2, 0, True, [])
    assert (steps.judged, steps.passed) == (3, True)


def test_values_outside_are_counted_and_shown() -> None:
    frame = pd.DataFrame({"pulse": [29.9, 300.1, 80.0]})
    [result] = validate(frame, [Range("pulse", 30, 300)])
    assert (result.judged, result.outside, result.passed) == (3, 2, False)
    assert sorted(result.examples) == [29.9, 300.1]
    [above] = validate(frame, [Range("pulse", None, 100)])
    assert above.examples == [300.1]


def test_a_column_without_values_is_judged_on_none() -> None:
    [result] = validate(pd.DataFrame({"pulse": [None, None]}, dtype="float64"), [Range("pulse", 30, 300)])
    assert (result.judged, result.outside, result.passed) == (0, 0, True)


ACTIVITY = f"create table anl.daily_activity ({', '.join(f'{name} decimal(12, 2)' for name in DAILY_ACTIVITY_RANGES)})"
LIVING = "insert into anl.daily_activity values (1000, 5, 90, 38.5, 70, 1440)"


def test_a_living_pet_is_in_range(holding: Holding) -> None:
    result, metadata = evaluated(checks.values_in_range, holding(ACTIVITY, LIVING))
    assert result.passed
    assert metadata["rows"] == 1
    assert metadata["not judged (no values)"] == "none"


def test_a_sensor_that_is_wrong_is_out_of_range(holding: Holding) -> None:
    fever = "insert into anl.daily_activity values (1000, 5, 90, 45, 70, null)"
    result, metadata = evaluated(checks.values_in_range, holding(ACTIVITY, LIVING, fever))
    assert not result.passed
    assert metadata["body_temp_c_mean outside"] == 1
    assert metadata["pulse_bpm_mean outside"] == 0


def test_no_activity_is_neither_in_nor_out_of_range(holding: Holding) -> None:
    result, metadata = evaluated(checks.values_in_range, holding(ACTIVITY))
    assert result.passed
    assert (metadata["status"], metadata["reason"]) == (
        "not applicable",
        "no pet has activity on the days that are looked at",
    )


def heartbeats(*ratios: str) -> list[str]:
    rows = ", ".join(f"('D{i}', date '2026-06-0{i + 1}', {ratio})" for i, ratio in enumerate(ratios))
    return [
        "create table anl.device_daily_heartbeat (device_id varchar, event_date date, heartbeat_ratio double)",
        *([f"insert into anl.device_daily_heartbeat values {rows}"] if ratios else []),
    ]


@pytest.mark.parametrize("ratios", [["0.8"], ["1.0", "0.81", "null"]])
def test_enough_heartbeats_pass(holding: Holding, ratios: list[str]) -> None:
    result, metadata = evaluated(checks.device_heartbeat, holding(*heartbeats(*ratios)))
    assert result.passed
    assert metadata["below"] == 0
    assert metadata["judged"] == len([ratio for ratio in ratios if ratio != "null"])


def test_only_the_run_of_all_checks_looks_at_days_that_were_not_rebuilt(holding: Holding) -> None:
    platform = holding(*heartbeats("0.25", "1.0"))
    with platform.warehouse() as con:
        con.execute(
            "insert into raw.rebuilt_days values ('anl.device_daily_heartbeat', date '2026-06-02', 1)"
        )
    result, metadata = evaluated(checks.device_heartbeat, platform)
    assert (result.passed, metadata["judged"]) == (True, 1)
    result, metadata = evaluated(checks.device_heartbeat, platform, ALL_TAGS)
    assert (result.passed, metadata["judged"]) == (False, 2)


def test_devices_below_the_ratio_are_named_and_warn(holding: Holding) -> None:
    platform = holding(*heartbeats("1.0", "0.79", "0.25"))
    result, metadata = evaluated(checks.device_heartbeat, platform)
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.WARN
    assert (metadata["judged"], metadata["below"], metadata["min_ratio"]) == (3, 2, 0.8)
    assert metadata["worst"][:2] == ["D2 2026-06-03 25%", "D1 2026-06-02 79%"]


def test_a_clinic_that_hears_nothing_is_named(holding: Holding) -> None:
    table = (
        "create table anl.clinic_daily_heartbeat (clinic_id varchar, event_date date, heartbeat_ratio double)"
    )
    rows = "('k1', date '2026-06-01', 1.0), ('k2', date '2026-06-01', 0.0), ('k3', date '2026-06-01', null)"
    platform = holding(table, f"insert into anl.clinic_daily_heartbeat values {rows}")
    result, metadata = evaluated(checks.clinic_heartbeat, platform)
    assert not result.passed
    assert metadata["worst"][0] == "k2 2026-06-01 0%"
    assert (metadata["judged"], metadata["below"]) == (2, 1)


def test_the_ratio_is_a_setting(holding: Holding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETWELLNESS_HEARTBEAT_MIN_RATIO", "0.2")
    result, _ = evaluated(checks.device_heartbeat, holding(*heartbeats("0.25")))
    assert result.passed


@pytest.mark.parametrize("ratios", [[], ["null", "null"]])
def test_trackers_without_a_cadence_have_no_heartbeat(holding: Holding, ratios: list[str]) -> None:
    result, metadata = evaluated(checks.device_heartbeat, holding(*heartbeats(*ratios)))
    assert result.passed
    assert metadata["status"] == "not applicable"
    assert "regular cadence" in metadata["reason"]


def layers(raw: int, stg: int, repeats: int, anl: int) -> list[str]:
    """Tables of telemetry with so many rows; the ledger says 10 offsets: 7 rows, 2 rejects, 1 drop."""
    tables = {
        "raw.telemetry_events": raw,
        "stg.telemetry_events": stg,
        "stg.telemetry_duplicates": repeats,
        "anl.telemetry_events": anl,
    }
    return [
        "create schema raw",
        "create schema stg",
        "create table raw.load_history as select 'telemetry_events' as feed, 's' as stream_id, 0 as start_offset, 10 as end_offset,"
        " 7 as row_count, 2 as rejected_count, 1 as consent_dropped_count, 0 as offset_gap_count",
        *(f"create table {name} as select i from range({rows}) t(i)" for name, rows in tables.items()),
    ]


def test_layers_that_add_up_pass(holding: Holding) -> None:
    result, metadata = evaluated(checks.layers_add_up, holding(*layers(7, 5, 2, 5)))
    assert result.passed
    assert metadata["raw to stg"] == {"before": 7, "after": 5, "duplicates": 2, "unexplained": 0}


def test_events_in_cold_storage_are_accounted_for(holding: Holding) -> None:
    moved = [
        "create table raw.cold_days (table_name varchar, event_date date, row_count bigint, fingerprint varchar)",
        "insert into raw.cold_days values ('anl.telemetry_events', date '2026-06-01', 3, 'f'),"
        " ('anl.telemetry_summary_hourly', date '2026-06-01', 100, 'f')",
    ]
    result, metadata = evaluated(checks.layers_add_up, holding(*layers(7, 5, 2, 2), *moved))
    assert result.passed
    assert metadata["stg to anl"] == {"before": 5, "after": 2, "in cold storage": 3, "unexplained": 0}


@pytest.mark.parametrize(
    ("counts", "step", "unexplained"),
    [
        ((6, 4, 2, 4), "lake to raw", 1),
        ((7, 4, 2, 4), "raw to stg", 1),
        ((7, 6, 2, 6), "raw to stg", -1),
        ((7, 5, 2, 6), "stg to anl", -1),
        ((7, 5, 2, 4), "stg to anl", 1),
    ],
)
def test_a_row_that_vanishes_or_appears_is_found(
    holding: Holding, counts: tuple[int, int, int, int], step: str, unexplained: int
) -> None:
    result, metadata = evaluated(checks.layers_add_up, holding(*layers(*counts)))
    assert not result.passed
    assert {name: m["unexplained"] for name, m in metadata.items() if m["unexplained"]} == {step: unexplained}


DOCUMENTS = (
    "create schema cur; create table cur.visit_documents as select 'd' as document_id;"
    " create table anl.documents_to_review (document_id varchar, clinic_id varchar, review_reason varchar,"
    " waiting_since_ts timestamp)"
)


def queue(tmp_path: Path, *rows: str) -> list[str]:
    """A queue of documents in a warehouse whose data end at midnight of 2026-06-10."""
    with open_warehouse(tmp_path / "warehouse.duckdb") as con:
        con.execute("insert into raw.watermark values (timestamp '2026-06-10 00:00:00')")
    return [DOCUMENTS, *(f"insert into anl.documents_to_review values ({row})" for row in rows)]


def test_documents_that_wait_within_their_time_are_a_queue(holding: Holding, tmp_path: Path) -> None:
    rows = queue(tmp_path, "'d1', 'c1', 'low_confidence', timestamp '2026-06-07 00:00:00'")
    result, metadata = evaluated(checks.reviews_keep_up, holding(*rows))
    assert result.passed
    assert (metadata["waiting"], metadata["overdue"]) == (1, 0)


def test_documents_that_wait_too_long_warn_with_counts(holding: Holding, tmp_path: Path) -> None:
    rows = queue(
        tmp_path,
        "'d1', 'c1', 'low_confidence', timestamp '2026-06-06 23:59:59'",
        "'d2', 'c2', 'unreadable', timestamp '2026-05-01 00:00:00'",
        "'d3', 'c2', 'low_confidence', timestamp '2026-06-09 00:00:00'",
        "'d4', null, 'low_confidence', timestamp '2026-06-09 00:00:00'",
    )
    result, metadata = evaluated(checks.reviews_keep_up, holding(*rows))
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.WARN
    assert (metadata["waiting"], metadata["overdue"], metadata["unreadable"]) == (4, 2, 1)
    assert metadata["waiting_by_clinic"] == {"c2": 2, "c1": 1, "unknown": 1}
    assert metadata["reason"] == "2 of 4 documents have waited more than 3 days"


def test_without_documents_nothing_can_wait(holding: Holding, tmp_path: Path) -> None:
    platform = holding(*queue(tmp_path), "delete from cur.visit_documents")
    _, metadata = evaluated(checks.reviews_keep_up, platform)
    assert metadata["status"] == "not applicable"
