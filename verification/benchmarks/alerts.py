"""How many planted illnesses and silent collars the wellness alerts find, and how often they cry wolf.

A simulated fleet with known truth goes into raw as it would land, dbt builds the
alerts, and they are held against what was planted. No broker and no lake: this
measures rules, not speed.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

CLINICAL_RULES = ("fever", "sudden_inactivity", "excessive_licking")
# An illness ends with the visit or recovery and then fades over a day.
FADING = timedelta(hours=24)
# Before that no pet has a baseline of three days and a window of one.
FIRST_BASELINE = timedelta(days=4)
SILENT_HOURS = 6
HOUR = timedelta(hours=1)

Span = tuple[datetime, datetime]


def load(con: Any, fleet: Any, say: Callable[[str], None]) -> None:
    """Every record and valid message of the fleet into raw, as they would have landed."""
    import numpy as np
    import pyarrow as pa

    from contracts.telemetry import NOT_BEFORE, believed_receipts
    from ingestion.collector.decode import decode_contract_json

    believed = believed_receipts(fleet.config.end_ts, NOT_BEFORE)

    def insert(feed: str, table: Any, **constants: Any) -> None:
        con.register("incoming", table)
        extra = "".join(f", {value} as {name}" for name, value in constants.items())
        con.execute(f"insert into raw.{feed} by name select *{extra} from incoming")
        con.unregister("incoming")

    for extract in fleet.record_extracts():
        stream = f"{extract.source}.{extract.feed}.{extract.extract_id}"
        moment = f"timestamp '{extract.extracted_at}'"
        rows = extract.table.append_column("kafka_offset", pa.array(range(len(extract.table)), pa.int64()))
        insert(
            *(extract.feed, rows),
            stream_id=f"'{stream}'",
            kafka_partition=0,
            arrival_ts=moment,
            ingested_at=moment,
            extracted_at=moment,
            source_system=f"'{extract.source}'",
            source_file="'simulated'",
        )
        con.execute(
            "insert into raw.extracts values (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                *(extract.extract_id, extract.feed, extract.source, stream, extract.complete),
                *(len(rows), extract.extracted_at, extract.extracted_at),
            ],
        )
    offset = 0
    for number in range(fleet.config.days):
        for batch in fleet.telemetry_wave(number, batch_rows=100_000):
            arrival_us = np.array(batch.arrival_ts_ms, np.int64) * 1000
            decoded = decode_contract_json(batch.values, arrival_us, believed)
            arrival = pa.array(arrival_us[decoded.index], pa.timestamp("us"))
            table = decoded.table.append_column("arrival_ts", arrival)
            table = table.append_column("kafka_offset", pa.array(offset + decoded.index))
            offset += len(batch)
            insert(
                *("telemetry_events", table),
                stream_id="'simulated.telemetry'",
                kafka_partition=0,
                ingested_at="arrival_ts",
                source_system="'petwellness-collar'",
                source_file="'simulated'",
            )
        say(f"day {number + 1} of {fleet.config.days}: {offset:,} messages")


def build(say: Callable[[str], None], as_of: datetime, folder: Path) -> None:
    """Build the alerts. Raises RuntimeError with dbt's own words."""
    from petwellness_orchestration.defs.warehouse.dbt_run import run_dbt
    from petwellness_orchestration.settings import load_settings

    command = ["build", "--select", "+anl_wellness_alerts"]
    command += ["--exclude-resource-type", "unit_test", "--exclude-resource-type", "test"]
    done = run_dbt(load_settings(), command, {"as_of_ts": f"{as_of:%Y-%m-%d %H:%M:%S}"}, folder / "dbt", say)
    if not done.succeeded:
        raise RuntimeError(f"dbt build failed: {done.error or done.failures}")


def score(alerts: list[dict[str, Any]], fleet: Any) -> dict[str, Any]:
    """The figures: of clinical alerts against illnesses, of dropouts against silences."""
    truth, config = fleet.truth(), fleet.config
    return {
        "collars": config.collars,
        "days": config.days,
        "alerts_by_rule": dict(sorted(Counter(alert["rule"] for alert in alerts).items())),
        "illness": _illnesses(alerts, truth, config),
        "dropout": _dropouts(alerts, fleet, truth),
    }


def _illnesses(alerts: list[dict[str, Any]], truth: Any, config: Any) -> dict[str, Any]:
    worn: dict[str, list[Span]] = {}
    for row in truth.tables["assignments"].to_pylist():
        worn.setdefault(row["pet_id"], []).append((row["assigned_from"], row["assigned_to"] or config.end_ts))
    clinical = [alert for alert in alerts if alert["rule"] in CLINICAL_RULES]
    # Ill for a day at least while the pet wore a collar and had a past to be compared with.
    illnesses = [
        row
        for row in truth.tables["illnesses"].to_pylist()
        if row["onset_ts"] >= config.start_ts + FIRST_BASELINE
        and min(row["until_ts"], config.end_ts) - row["onset_ts"] >= 24 * HOUR
        and any(
            start <= row["onset_ts"] - FIRST_BASELINE and end >= min(row["until_ts"], config.end_ts)
            for start, end in worn.get(row["pet_id"], [])
        )
    ]
    every = truth.tables["illnesses"].to_pylist()

    def of(alert: dict[str, Any], illness: dict[str, Any]) -> bool:
        return (
            alert["pet_id"] == illness["pet_id"]
            and illness["onset_ts"] <= alert["raised_at"] <= illness["until_ts"] + FADING
        )

    found: Counter[str] = Counter()
    planted: Counter[str] = Counter()
    by_rule: dict[str, Counter[str]] = {rule: Counter() for rule in CLINICAL_RULES}
    delays = []
    for illness in illnesses:
        hits = [alert for alert in clinical if of(alert, illness)]
        planted[illness["kind"]] += 1
        if hits:
            found[illness["kind"]] += 1
            first = min(alert["raised_at"] for alert in hits)
            delays.append((first - illness["onset_ts"]) / HOUR)
        for rule in {alert["rule"] for alert in hits}:
            by_rule[rule][illness["kind"]] += 1
    lazy = {(row["pet_id"], row["day"]) for row in truth.tables["lazy_days"].to_pylist()}
    false = [alert for alert in clinical if not any(of(alert, illness) for illness in every)]
    on_lazy = [
        alert
        for alert in false
        if {(alert["pet_id"], (alert["raised_at"] - back).date()) for back in (0 * HOUR, 24 * HOUR)} & lazy
    ]
    pet_weeks = sum(
        max(end - max(start, config.start_ts), 0 * HOUR) / timedelta(days=7)
        for spans in worn.values()
        for start, end in spans
    )
    return {
        "planted": sum(planted.values()),
        "found": sum(found.values()),
        "recall": round(sum(found.values()) / max(1, sum(planted.values())), 3),
        "recall_by_kind": {kind: f"{found[kind]} of {planted[kind]}" for kind in sorted(planted)},
        "found_by_rule": {rule: dict(sorted(kinds.items())) for rule, kinds in by_rule.items()},
        "median_hours_from_onset": round(statistics.median(delays), 1) if delays else None,
        "alerts": len(clinical),
        "false": len(false),
        "false_by_rule": dict(Counter(alert["rule"] for alert in false)),
        "false_on_planted_lazy_days": len(on_lazy),
        "false_per_pet_week": round(len(false) / pet_weeks, 3),
        "pet_weeks": round(pet_weeks, 1),
    }


def _dropouts(alerts: list[dict[str, Any]], fleet: Any, truth: Any) -> dict[str, Any]:
    config, world = fleet.config, fleet.world
    silences: dict[str, list[Span]] = {}
    for row in truth.tables["gaps"].to_pylist():
        silences.setdefault(row["device_id"], []).append((row["from_ts"], row["to_ts"]))
    for device, since in zip(world.device_ids, world.device_silent_from, strict=True):
        if since is not None:
            silences.setdefault(device, []).append((since, config.end_ts))
    worn = truth.tables["assignments"].to_pylist()
    raised = [alert for alert in alerts if alert["rule"] == "collar_dropout"]

    def whole_hours(span: Span) -> int:
        first = -((config.start_ts - span[0]) // HOUR)
        return (span[1] - config.start_ts) // HOUR - first

    def explains(span: Span, device: str, alert: dict[str, Any]) -> bool:
        return span[0] <= alert["raised_at"] <= span[1] + 2 * HOUR and any(
            row["device_id"] == device and row["pet_id"] == alert["pet_id"] for row in worn
        )

    long = [
        (device, span)
        for device, spans in silences.items()
        for span in spans
        if whole_hours((span[0], min(span[1], config.end_ts))) >= SILENT_HOURS
        and any(
            row["device_id"] == device
            and row["assigned_from"] <= span[0]
            and (row["assigned_to"] is None or row["assigned_to"] >= span[1])
            for row in worn
        )
    ]
    found = sum(any(explains(span, device, alert) for alert in raised) for device, span in long)
    false = [
        alert
        for alert in raised
        if not any(explains(span, device, alert) for device, spans in silences.items() for span in spans)
    ]
    return {
        "silences_of_six_hours": len(long),
        "found": found,
        "alerts": len(raised),
        "false": len(false),
    }


def run(collars: int, days: int, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Make, load, build and score; the warehouse stays in `folder`."""
    from simulation import Fleet, FleetConfig
    from simulation.config import ORDINARY
    from warehouse.duckdb.raw import data_time, fetch_rows, open_warehouse

    config = FleetConfig(collars=collars, households=max(1, collars * 5 // 6), days=days)
    fleet = Fleet(config.model_copy(update=ORDINARY))
    path = folder / "warehouse.duckdb"
    if not path.exists():
        with open_warehouse(path) as con:
            load(con, fleet, say)
    with open_warehouse(path) as con:
        as_of = data_time(con)
    if as_of is None:
        raise RuntimeError(f"nothing was loaded into {path}")
    os.environ["PETWELLNESS_HOME"] = str(folder)
    build(say, as_of, folder)
    with open_warehouse(path, read_only=True) as con:
        alerts = fetch_rows(con, "select pet_id, rule, raised_at, closed_at from anl.wellness_alerts")
    return score(alerts, fleet)


def main(arguments: list[str] | None = None) -> int:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m verification.benchmarks.alerts", description=__doc__)
    parser.add_argument("--collars", type=int, default=60)
    parser.add_argument("--days", type=int, default=21)
    parser.add_argument("--folder", type=Path, help="keep the warehouse here, and use the one that is there")
    options = parser.parse_args(arguments)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="petwellness-alerts-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(json.dumps(run(options.collars, options.days, folder, say), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
