"""Dagster's storage in the state folder, as a run in this process uses it."""

import sqlite3
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log.sqlite import consolidated_sqlite_event_log

from petwellness_orchestration.instance import EVENTS_FILE, events_kept_open, prepare_dagster_home
from petwellness_orchestration.settings import load_settings


def materialize_once(instance: dg.DagsterInstance) -> None:
    @dg.asset
    def one() -> None: ...

    assert dg.materialize([one], instance=instance).success


def test_events_of_a_run_are_in_one_file_that_is_written_back_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", "")
    settings = load_settings()
    folder = prepare_dagster_home(settings)
    with dg.DagsterInstance.get() as instance:
        [events] = folder.rglob(EVENTS_FILE)
        written_ahead = events.with_name(f"{EVENTS_FILE}-wal")
        with events_kept_open(settings):
            materialize_once(instance)
            assert written_ahead.stat().st_size > 0
        assert not written_ahead.exists()
    with sqlite3.connect(events) as con:
        kinds = {kind for (kind,) in con.execute("select dagster_event_type from event_logs").fetchall()}
    assert {"ASSET_MATERIALIZATION", "PIPELINE_SUCCESS"} <= kinds


def test_a_run_writes_its_events_over_one_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", "")
    prepare_dagster_home(load_settings())
    with dg.DagsterInstance.get() as instance:
        made = []
        of_dagster = consolidated_sqlite_event_log.create_engine
        monkeypatch.setattr(
            consolidated_sqlite_event_log,
            "create_engine",
            lambda *args, **options: made.append(args) or of_dagster(*args, **options),
        )
        materialize_once(instance)
        assert instance.all_logs(instance.get_runs()[0].run_id)
    # Dagster looks once, over an engine of its own, whether a table is there.
    assert len(made) <= 1


def test_a_commit_of_events_does_not_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", "")
    prepare_dagster_home(load_settings())
    with dg.DagsterInstance.get() as instance, instance.event_log_storage.index_connection() as con:
        # Normal, which keeps the file whole with a write-ahead log only.
        assert con.exec_driver_sql("pragma synchronous").scalar() == 1
        assert con.exec_driver_sql("pragma journal_mode").scalar() == "wal"


def test_before_the_first_run_there_is_nothing_to_keep_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path))
    with events_kept_open(load_settings()):
        assert not list(tmp_path.rglob(EVENTS_FILE))
