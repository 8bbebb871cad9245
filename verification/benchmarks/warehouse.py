"""What the warehouse costs: a night's increment on a short and a long history, a whole large day, readers beside a writer.

Telemetry is made as columns and landed by the protocol, an hour a range, so that
hundreds of millions of rows take minutes; records are the simulated fleet's. Every
run of the platform is the job `refresh` (load, build with its tests, check, publish)
in a process of its own. Ratios come from one run on one machine:

- increment: the same day added to a history of 10 days and to one of 100;
- day: a day of 50,000 collars against DuckDB loading, sorting and writing the same rows;
- readers: the published copy while a refresh writes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    from lake.store import ObjectStore
    from simulation import Fleet

Say = Callable[[str], None]

START = date(2026, 1, 1)
MINUTES = 1440
HOURS = 24
# One event in so many is received a day late, so that a night rebuilds two days.
LATE_EVERY = 200
INCREMENTS = 3
# Days of a fleet beyond its history: the increments, and one more that readers read beside.
ADDED_DAYS = INCREMENTS + 1
COLLARS_PER_CLINIC = 1_250
COLLARS_PER_HOUSEHOLD = 1.22
DAY_MEMORY = "5GB"
YEAR_OF_MINUTES = 365 * MINUTES
BYTES_PER_ROW = 400


@dataclass(frozen=True)
class Refresh:
    """One run of the job: seconds of its steps, and the most memory its process had."""

    steps_s: dict[str, float]
    peak_bytes: int

    @property
    def total_s(self) -> float:
        """Seconds of all steps; what starting Dagster takes is not in it."""
        return sum(self.steps_s.values())


def fleet_of(devices: int, days: int) -> Fleet:
    """A fleet whose households and clinics grow with its collars."""
    from simulation import Fleet, FleetConfig
    from simulation.config import ORDINARY

    return Fleet(
        FleetConfig(
            collars=devices,
            households=max(1, round(devices / COLLARS_PER_HOUSEHOLD)),
            clinics=min(999, max(1, devices // COLLARS_PER_CLINIC)),
            days=days,
            start=START,
        ).model_copy(update=ORDINARY)
    )


def land_records(store: ObjectStore, fleet: Fleet) -> None:
    """All record extracts of the fleet's period."""
    from lake.extract import land_extract

    for one in fleet.record_extracts():
        land_extract(store, **one.arguments)


def hour_table(device_ids: pa.Array, clinic_ids: pa.Array, first_minute: datetime) -> pa.Table:
    """An hour of events of every collar, in order of receipt: one a minute, some received a day late."""
    import pyarrow as pa

    from contracts.columns import TELEMETRY_FIELDS

    devices, count = len(device_ids), 60 * len(device_ids)
    draws = np.random.default_rng(int(first_minute.replace(tzinfo=UTC).timestamp()))
    device = np.tile(np.arange(devices), 60)
    arrival_us = np.repeat(np.arange(60), devices) * 60_000_000 + device * (50_000_000 // devices)
    arrival_us += int(first_minute.replace(tzinfo=UTC).timestamp()) * 1_000_000
    late = np.arange(count) % LATE_EVERY == 0
    event_us = arrival_us - 2_000_000 - np.where(late, 86_400_000_000, 0)
    # Distinct for up to 100,003 collars.
    ids = [f"{number:016x}" for number in (event_us * 100_003 + device).tolist()]
    numbers: dict[str, Any] = {
        "accel_x_g": draws.integers(-20_000, 20_000, count),
        "accel_y_g": draws.integers(-20_000, 20_000, count),
        "accel_z_g": draws.integers(-20_000, 20_000, count),
        "gps_lat": 473_700_000 + draws.integers(0, 100_000, count),
        "gps_long": 85_400_000 + draws.integers(0, 100_000, count),
        "battery_pct": 2_000 + draws.integers(0, 8_000, count),
        "pulse_bpm": 800 + draws.integers(0, 400, count),
        "body_temp_c": 3_800 + draws.integers(0, 90, count),
        "respiration_rpm": 200 + draws.integers(0, 100, count),
    }
    columns: dict[str, Any] = {
        "device_id": device_ids.take(pa.array(device)),
        "event_ts": pa.array(event_us).cast(pa.timestamp("us")),
        "event_id": pa.array(ids, pa.string()),
        "step_count": pa.array(draws.integers(0, 60, count), pa.int32()),
        "lick_count": pa.array(draws.integers(0, 3, count), pa.int32()),
        "firmware_version": pa.repeat(pa.scalar("2.4.0"), count),
        "capture_clinic_id": clinic_ids.take(pa.array(device % len(clinic_ids))),
        "schema_version": pa.repeat(pa.scalar(1, pa.int32()), count),
    }
    arrays = [
        columns[field.name]
        if field.name in columns
        else _decimals(numbers[field.name], field.type)
        if field.name in numbers
        else pa.nulls(count, field.type)
        for field in TELEMETRY_FIELDS
    ]
    return pa.table(
        [*arrays, pa.repeat(pa.scalar("{}"), count), pa.array(arrival_us).cast(pa.timestamp("us"))],
        names=[*(field.name for field in TELEMETRY_FIELDS), "payload", "arrival_ts"],
    )


def _decimals(unscaled: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Decimals from whole numbers of their last digit."""
    import pyarrow as pa

    words = np.empty((len(unscaled), 2), np.int64)
    words[:, 0], words[:, 1] = unscaled, unscaled >> 63
    return pa.Array.from_buffers(kind, len(unscaled), [None, pa.py_buffer(words)])


def land_day(store: ObjectStore, fleet: Fleet, day: date) -> int:
    """Land a day of the fleet's telemetry, an hour a range; the number of rows."""
    import pyarrow as pa

    from lake.landing import Claim, claim_range, land_range

    device_ids, clinic_ids = pa.array(fleet.world.device_ids), pa.array(fleet.world.clinic_ids)
    midnight = datetime(day.year, day.month, day.day)
    rows = 0
    for hour in range(HOURS):
        table = hour_table(device_ids, clinic_ids, midnight + timedelta(hours=hour))
        start = ((day - START).days * HOURS + hour) * table.num_rows
        claim = Claim(
            stream_id="benchmark.telemetry.topic",
            partition=0,
            start=start,
            end=start + table.num_rows,
            feed="telemetry_events",
            source_system="petwellness-collar",
            decoder="collar-v1@1",
            claimed_at=midnight + timedelta(hours=hour + 1),
            claimed_by="benchmark",
        )
        offsets = pa.array(np.arange(start, claim.end))
        table = table.append_column("kafka_offset", offsets)
        rows += land_range(store, claim_range(store, claim), table).rows
    return rows


REFRESH = """
import json
from contracts.memory import peak_memory_bytes
from petwellness_orchestration.cli.runs import REFRESH, run_job
from petwellness_orchestration.settings import load_settings
done = run_job(load_settings(), REFRESH)
print(json.dumps([done.success, done.error, done.step_seconds, peak_memory_bytes()]))
"""


def environment(home: Path, memory: str | None = None) -> dict[str, str]:
    """Of a run on a state folder; what the caller's shell sets for the platform does not count."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PETWELLNESS_")}
    return own | {"PETWELLNESS_HOME": str(home)} | ({"PETWELLNESS_DUCKDB_MEMORY": memory} if memory else {})


def refresh(home: Path, memory: str | None = None) -> Refresh:
    """Run the job `refresh`. Raises RuntimeError with its message when it fails."""
    done = subprocess.run(
        [sys.executable, "-c", REFRESH],
        env=environment(home, memory),
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        raise RuntimeError(f"the refresh ended with exit code {done.returncode}: {done.stderr[-2000:]}")
    success, error, steps, peak_bytes = json.loads(lines[-1])
    if not success:
        raise RuntimeError(f"the refresh failed: {error}")
    return Refresh(steps, peak_bytes)


def history(home: Path, fleet: Fleet, days: int, say: Say) -> ObjectStore:
    """Land and build the first days of a fleet in a fresh state folder."""
    from lake.store import LocalStore

    store = LocalStore(home / "lake")
    land_records(store, fleet)
    rows = sum(land_day(store, fleet, START + timedelta(days=number)) for number in range(days))
    say(f"{days} days: {rows:,} rows landed; building ...")
    built = refresh(home, memory=DAY_MEMORY)
    say(f"{days} days built in {built.total_s:,.0f} s, {built.peak_bytes / 1e9:.1f} GB")
    return store


def increment(folder: Path, devices: int, short: int, long: int, say: Say) -> dict[str, Any]:
    """Seconds of one more day on each history, in turns; the ratio of their medians."""
    lengths = {"short": short, "long": long}
    fleets = {name: fleet_of(devices, days + ADDED_DAYS) for name, days in lengths.items()}
    stores = {name: history(folder / name, fleets[name], days, say) for name, days in lengths.items()}
    found: dict[str, list[Refresh]] = {name: [] for name in lengths}
    for number in range(INCREMENTS):
        for name, days in lengths.items():
            land_day(stores[name], fleets[name], START + timedelta(days=days + number))
            found[name].append(refresh(folder / name))
            say(f"one more day on {days}: {found[name][-1].total_s:.1f} s")
    median_s = {name: statistics.median(one.total_s for one in runs) for name, runs in found.items()}
    return {
        "devices": devices,
        "short_days": short,
        "long_days": long,
        "rows": devices * MINUTES * long,
        "short_s": round(median_s["short"], 1),
        "long_s": round(median_s["long"], 1),
        "ratio": round(median_s["long"] / median_s["short"], 2),
        "steps": {
            step: [round(found[name][-1].steps_s[step], 1) for name in lengths]
            for step in sorted(found["long"][-1].steps_s)
        },
    }


BASELINE = """
import json, sys, time
import duckdb
from contracts.memory import peak_memory_bytes
from lake.sql_text import literal
lake, scratch, memory = sys.argv[1:]
began = time.perf_counter()
con = duckdb.connect(scratch + "/baseline.duckdb")
# It would go to standard output, where the figures go.
con.execute("set enable_progress_bar = false")
con.execute(f"set memory_limit = '{memory}'; set threads = 2; set preserve_insertion_order = false")
con.execute(
    "create table events as select * exclude (payload), cast(event_ts as date) as event_date"
    f" from read_parquet({literal(lake + '/landing/telemetry_events/*/*.parquet')}, hive_partitioning = false)"
)
con.execute(
    f"copy (select * from events order by device_id, event_ts) to {literal(scratch + '/sorted.parquet')}"
    " (format parquet, compression zstd)"
)
con.close()
print(json.dumps([time.perf_counter() - began, peak_memory_bytes()]))
"""


def whole_day(folder: Path, devices: int, say: Say) -> dict[str, Any]:
    """A day from lake to published tables, against loading, sorting and writing its rows in DuckDB."""
    from lake.store import LocalStore

    home, fleet = folder / "day", fleet_of(devices, 1)
    store = LocalStore(home / "lake")
    land_records(store, fleet)
    rows = land_day(store, fleet, START)
    say(f"{rows:,} rows of {devices:,} collars landed; loading, sorting and writing them with DuckDB ...")
    scratch = folder / "baseline"
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", BASELINE, str(home / "lake"), str(scratch), DAY_MEMORY],
        capture_output=True,
        text=True,
        check=True,
    )
    baseline_s, baseline_bytes = json.loads(done.stdout)
    shutil.rmtree(scratch)
    say(f"{baseline_s:,.0f} s; the platform ...")
    built = refresh(home, memory=DAY_MEMORY)
    return {
        "devices": devices,
        "rows": rows,
        "baseline_s": round(baseline_s, 1),
        "baseline_peak_bytes": baseline_bytes,
        "platform_s": round(built.total_s, 1),
        "platform_peak_bytes": built.peak_bytes,
        "ratio": round(built.total_s / baseline_s, 2),
        "steps": {step: round(seconds, 1) for step, seconds in sorted(built.steps_s.items())},
    }


def readers(home: Path, land_one_more: Callable[[], Any], say: Say) -> dict[str, Any]:
    """p95 of two queries on the published copy while a refresh writes."""
    import duckdb

    published = home / "published" / "petwellness.duckdb"
    with duckdb.connect(str(published), read_only=True) as con:
        first, last, clinic_id = con.execute(
            "select min(event_date), max(event_date), min(clinic_id) from anl.pet_daily_summary"
        ).fetchone() or (None, None, None)
        pets_wanted = -(-YEAR_OF_MINUTES // (((last - first).days + 1) * MINUTES))
        pets = con.execute(
            f"select pet_id from anl.pet_daily_summary group by pet_id order by sum(event_count) desc, pet_id limit {pets_wanted}"
        ).fetchall()
    listed = ", ".join(f"'{pet_id}'" for (pet_id,) in pets)
    queries = {
        "clinic_month": (
            "select pet_id, event_date, total_steps, pulse_bpm_mean, body_temp_c_mean, worn_minutes"
            f" from anl.pet_daily_summary where clinic_id = '{clinic_id}'"
            f" and event_date > date '{last}' - 30 order by pet_id, event_date"
        ),
        "year_of_minutes": (
            "select count(*), avg(pulse_bpm), stddev(pulse_bpm), min(pulse_bpm), max(pulse_bpm) from ("
            f"select pulse_bpm from anl.telemetry_events where pet_id in ({listed}) limit {YEAR_OF_MINUTES}) as minutes"
        ),
    }
    land_one_more()
    writer = subprocess.Popen(
        [sys.executable, "-c", REFRESH], env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    milliseconds: dict[str, list[float]] = {name: [] for name in queries}
    drained = threading.Thread(target=writer.communicate, daemon=True)
    drained.start()
    with duckdb.connect(str(published), read_only=True, config={"threads": 2}) as con:
        # As README tells readers of many questions.
        con.execute("set parquet_metadata_cache = true")
        while writer.poll() is None:
            for name, sql in queries.items():
                began = time.perf_counter()
                con.execute(sql).fetchall()
                milliseconds[name].append((time.perf_counter() - began) * 1000)
    drained.join()
    if writer.returncode != 0:
        raise RuntimeError("the refresh beside the readers failed")
    # The first reads open files.
    warm = {name: sorted(found[3:]) for name, found in milliseconds.items()}
    return {
        "reads": min(map(len, warm.values())),
        **{f"{name}_p50_ms": round(found[len(found) // 2], 1) for name, found in warm.items()},
        **{f"{name}_p95_ms": round(found[int(len(found) * 0.95)], 1) for name, found in warm.items()},
    }


def histories(folder: Path, devices: int, short: int, long: int, say: Say) -> dict[str, Any]:
    """One more day on a short and a long history, then readers beside a writer on the long one."""
    from lake.store import LocalStore

    added = increment(folder, devices, short, long, say)

    def one_more() -> None:
        last = START + timedelta(days=long + INCREMENTS)
        land_day(LocalStore(folder / "long" / "lake"), fleet_of(devices, long + ADDED_DAYS), last)

    say("reading while a refresh writes ...")
    read = readers(folder / "long", one_more, say)
    figures = {"increment": added, "readers": read, "increment_ratio": added["ratio"]}
    return figures | {name: read[name] for name in ("clinic_month_p95_ms", "year_of_minutes_p95_ms")}


def record(name: str, work: Callable[[Path], dict[str, Any]], output: Path) -> None:
    """Measure in a folder of its own; write and print the figures beside those of the other benchmarks."""
    from verification.benchmarks import machine, report

    with tempfile.TemporaryDirectory(prefix="petwellness-warehouse-") as folder:
        section = machine.section(lambda: work(Path(folder)))
    document = report.merged(report.read(output), machine.describe(), {name: section})
    report.write(output, document)
    print("\n".join(report.lines({**document, "benchmarks": {name: section}})), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Measure the large day, then the histories; each is written when it is done."""
    from verification.benchmarks.report import RESULTS, say

    parser = argparse.ArgumentParser(prog="python -m verification.benchmarks.warehouse", description=__doc__)
    parser.add_argument(
        "--devices",
        type=int,
        default=1_000,
        help="collars of the histories, 0 for none (default: %(default)s)",
    )
    parser.add_argument(
        "--short", type=int, default=10, help="days of the short history (default: %(default)s)"
    )
    parser.add_argument("--long", type=int, default=100, help="days of the long one (default: %(default)s)")
    parser.add_argument(
        "--day-devices",
        type=int,
        default=50_000,
        help="collars of the whole day, 0 for none (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON file (default: %(default)s)")
    options = parser.parse_args(arguments)
    rows = max(options.devices * options.long, options.day_devices) * MINUTES
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < rows * BYTES_PER_ROW:
        say(
            f"{tempfile.gettempdir()} has {free / 1e9:.0f} GB free, {rows * BYTES_PER_ROW / 1e9:.0f} are needed; set TMPDIR"
        )
        return 1
    if options.day_devices:
        record("warehouse_day", lambda folder: whole_day(folder, options.day_devices, say), options.output)
    if options.devices:
        record(
            "warehouse",
            lambda folder: histories(folder, options.devices, options.short, options.long, say),
            options.output,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
