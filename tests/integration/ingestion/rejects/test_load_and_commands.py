"""Replayed rows on their way into the warehouse, and what a person sees of rejects."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ingestion.collector.consent import OptOut
from lake.landing import list_claims, list_manifests
from petwellness_orchestration.cli import expected_line
from petwellness_orchestration.cli.app import app
from petwellness_orchestration.cli.summary import lake_figures
from warehouse.counts import layer_steps
from warehouse.duckdb.raw import load_pending, open_warehouse
from warehouse.reconcile import read_raw_ranges, reconcile


def land_some(lab: Any) -> None:
    lab.land([lab.message(n, needs=1 + n % 3) for n in range(9)] + [b"{", b""])


def test_loads_take_replays_up_and_every_count_still_adds_up(lab: Any, tmp_path: Path) -> None:
    """Loaded before and after the replay: the broker's messages are the same, fewer are rejected."""
    land_some(lab)
    with open_warehouse(tmp_path / "warehouse.duckdb", lab.store) as con:
        # Tables that dbt would build of these few rows.
        for table in ("stg.telemetry_events", "stg.telemetry_duplicates", "anl.telemetry_events"):
            con.execute(f"create schema if not exists {table.split('.')[0]}")
            con.execute(f"create table {table} (device_id varchar)")
        steps = []
        for version in (1, 2, 3):
            lab.release(version)
            if version == 3:
                lab.opt_out(OptOut("d-2", lab.start, None), name="s-1")
            lab.replay()
            manifests = list_manifests(lab.store)
            load_pending(con, lab.store, manifests)
            raw_ranges, orphans = read_raw_ranges(con)
            result = reconcile(list_claims(lab.store), manifests, raw_ranges, orphans)
            assert result.findings == ()
            assert con.execute("select count(*) from raw.telemetry_events").fetchall() == [
                (lab.rows().num_rows,)
            ]
            steps.append(layer_steps(con)[0])
            assert lake_figures(lab.store, manifests)["messages"] == 11
    assert [step.before for step in steps] == [11, 11, 11]
    assert [step.unexplained for step in steps] == [0, 0, 0]
    assert [step.set_aside for step in steps] == [
        {"rejected": 8, "dropped by consent": 0, "offset gaps": 0},
        {"rejected": 5, "dropped by consent": 0, "offset gaps": 0},
        {"rejected": 2, "dropped by consent": 3, "offset gaps": 0},
    ]


@pytest.fixture
def command(lab: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a `petwellness rejects` command on the lab's lake."""
    monkeypatch.setenv("PETWELLNESS_HOME", str(lab.home))

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["rejects", *arguments], catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    return run


def test_a_list_counts_by_reason_and_shows_payloads_only_on_request(lab: Any, command: Any) -> None:
    land_some(lab)
    shown = command("list")
    assert "version" in shown and "malformed" in shown and '"id"' not in shown and "e-1" not in shown
    assert "cluster.telemetry.lab.topic1[0]@1 2026-06-01 00:01:02 version: made for a newer decoder" in shown
    with_payload = command("list", "--payload", "--reason", "version", "--limit", "1")
    assert "restricted" in with_payload
    assert "e-1" in with_payload and "e-2" not in with_payload
    ranges = command("list", "--by-range", "--limit", "0")
    assert "cluster.telemetry.lab.topic1[0] 0-11 lab-v1@1: empty 1, malformed 1, version 6" in ranges


def test_a_list_as_json_follows_replays(lab: Any, command: Any) -> None:
    land_some(lab)
    lab.release(2)
    told = command("replay")
    assert "landed                3  (version 3)" in told
    assert "still rejected        5  (empty 1, malformed 1, version 3)" in told
    document = json.loads(command("list", "--format", "json", "--by-range", "--day", "2026-06-01"))
    assert document["by_reason"]["version"] == {"rejected": 6, "replayed": 3, "without_payload": 0}
    assert document["total"] == {"rejected": 8, "replayed": 3, "without_payload": 0}
    assert [one["replayed"] for one in document["ranges"]] == [3]
    assert [one["replayed"] for one in document["examples"]].count(True) == 3
    assert all("payload" not in one for one in document["examples"])
    assert json.loads(command("list", "--format", "json", "--day", "2026-06-02"))["total"]["rejected"] == 0


def test_a_dry_run_says_that_it_is_one(lab: Any, command: Any) -> None:
    land_some(lab)
    lab.release(2)
    told = command("replay", "--dry-run")
    assert "would land            3  (version 3)" in told
    assert "nothing was stored" in told
    assert len(list_manifests(lab.store)) == 1


def test_wrong_names_and_an_old_consent_snapshot_are_one_line(lab: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("PETWELLNESS_HOME", str(lab.home))
    for arguments, part in (
        (["list", "--reason", "odd"], "there is no reason 'odd'; known: empty, oversized"),
        (["replay", "--source", "odd"], "there is no source system 'odd'; known: petwellness-collar"),
        (["list", "--format", "xml"], "choose one of: table, json"),
    ):
        error = CliRunner().invoke(app, ["rejects", *arguments]).exception
        assert error is not None
        assert part in (expected_line(error) or "")
    monkeypatch.setenv("PETWELLNESS_COLLECTOR_CONSENT_MAX_AGE_S", "0.000001")
    error = CliRunner().invoke(app, ["rejects", "replay"]).exception
    assert error is not None
    assert "consent snapshot s-0 is" in (expected_line(error) or "")
