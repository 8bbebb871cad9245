"""Compaction of a simulated arrival day: size, speed, memory, and finding one device's rows before and after.

The fleet's messages are decoded and landed as the collector does, an hour and a
partition a file; no broker is involved. Compaction runs in a process of its own, so
that its peak memory is its own.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lake.store import ObjectStore

COLLARS = 2_100
CLINICS = 50
HOURS = 24
PARTITIONS = 16
LOOKUPS = 5
CLAIMED_FROM = datetime(2026, 6, 2)


def land_fleet_day(store: ObjectStore, collars: int = COLLARS, partitions: int = PARTITIONS) -> int:
    """Land one day of a fleet, one file an hour and partition; the number of rows."""
    import numpy as np
    import pyarrow as pa

    from contracts.telemetry import NOT_BEFORE, believed_receipts
    from ingestion.collector.decode import decode_contract_json
    from lake.landing import Claim, claim_range, land_range
    from simulation import Fleet, FleetConfig
    from simulation.config import ORDINARY

    config = FleetConfig(collars=collars, households=collars, clinics=CLINICS, days=3, malformed=0)
    fleet = Fleet(config.model_copy(update=ORDINARY))
    fleet.record_extracts()
    believed = believed_receipts(CLAIMED_FROM + timedelta(hours=HOURS), NOT_BEFORE)
    buffers: list[list[tuple[bytes, int]]] = [[] for _ in range(partitions)]
    starts = [0] * partitions
    rows = 0

    def land_hour(hour: int) -> int:
        landed = 0
        for partition, messages in enumerate(buffers):
            if not messages:
                continue
            arrival_us = np.array([arrival_ms * 1000 for _, arrival_ms in messages], np.int64)
            decoded = decode_contract_json([value for value, _ in messages], arrival_us, believed)
            offsets = pa.array(decoded.index + starts[partition])
            arrivals = pa.array(arrival_us[decoded.index], pa.timestamp("us"))
            table = decoded.table.append_column("kafka_offset", offsets).append_column("arrival_ts", arrivals)
            end = starts[partition] + len(messages)
            claim = Claim(
                stream_id="benchmark.telemetry.topic",
                partition=partition,
                start=starts[partition],
                end=end,
                feed="telemetry_events",
                source_system="petwellness-collar",
                decoder="collar-v1@1",
                claimed_at=CLAIMED_FROM + timedelta(hours=hour),
                claimed_by="benchmark",
            )
            # The few that break the contract count as gaps: rejects are not what is measured.
            gaps = len(messages) - table.num_rows
            landed += land_range(store, claim_range(store, claim), table, offset_gaps=gaps).rows
            starts[partition] = end
            messages.clear()
        return landed

    seen, hour = 0, 0
    for batch in fleet.telemetry_wave(1):
        for key, value, arrival_ms in zip(batch.keys, batch.values, batch.arrival_ts_ms, strict=True):
            buffers[zlib.crc32(key) % partitions].append((value, arrival_ms))
        seen += len(batch)
        if seen >= (hour + 1) * collars * 1440 // HOURS and hour < HOURS - 1:
            rows += land_hour(hour)
            hour += 1
    return rows + land_hour(hour)


def lookup(store: ObjectStore) -> float:
    """Seconds to find one device's rows of the newest arrival day, median of a few; the files stay warm.

    The catalogue is rolled up first, as it is for a day that is closed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lake.catalogue import roll_up
    from lake.landing import day_manifests, utc_now
    from lake.snapshots import device_rows
    from lake.upkeep import ranges_by_day

    roll_up(store, utc_now() + timedelta(hours=2))
    day = max(ranges_by_day(store))
    landed = next(m for m in day_manifests(store, "telemetry_events", day) if m.rows)
    devices = pq.read_table(pa.BufferReader(store.get(landed.source_file)), columns=["device_id"])[
        "device_id"
    ]
    device = sorted(set(devices.to_pylist()))[devices.length() % 7]
    found = []
    for _ in range(LOOKUPS):
        started = time.perf_counter()
        rows = device_rows(store, day, device)
        found.append(time.perf_counter() - started)
        if not rows.num_rows:
            raise AssertionError(f"{device} has landed rows on {day}, and none was found")
    return round(statistics.median(found), 4)


def compact_apart(lake: str, scratch: str) -> dict[str, Any]:
    """Compact the benchmark's day; figures of this process."""
    from contracts.memory import peak_memory_bytes
    from lake.compaction import compact_day
    from lake.settings import CompactionSettings
    from lake.store import LocalStore

    cpu = time.process_time()
    report = compact_day(
        LocalStore(Path(lake)), CLAIMED_FROM.date(), CompactionSettings(), Path(scratch), even_if_open=True
    )
    assert report.snapshot is not None
    return {
        "rows": report.snapshot.rows,
        "files": len(report.snapshot.files),
        "file_bytes": report.snapshot.bytes,
        "seconds": report.seconds,
        "cpu_s": time.process_time() - cpu,
        "peak_bytes": peak_memory_bytes(),
    }


def run(collars: int = COLLARS) -> dict[str, Any]:
    """Figures of one arrival day: bytes a row, seconds a million rows, peak memory, a device's day."""
    import multiprocessing

    from lake.landing import list_manifests
    from lake.store import LocalStore

    with tempfile.TemporaryDirectory(prefix="petwellness-compaction-") as folder:
        store = LocalStore(Path(folder) / "lake")
        rows = land_fleet_day(store, collars)
        manifests = list_manifests(store)
        before_s = lookup(store)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as apart:
            done = apart.submit(compact_apart, str(Path(folder) / "lake"), str(Path(folder) / "scratch"))
            found = done.result()
        if found["rows"] != rows:
            raise AssertionError(f"{rows} rows landed, {found['rows']} are in the snapshot")
        after_s = lookup(store)
    millions = rows / 1e6
    return {
        "rows": rows,
        "landing_files": len(manifests),
        "compacted_files": found["files"],
        "landing_bytes_per_row": round(sum(m.bytes for m in manifests) / rows, 1),
        "compacted_bytes_per_row": round(found["file_bytes"] / rows, 1),
        **{f"{stage}_s_per_million": round(s / millions, 2) for stage, s in found["seconds"].items()},
        "cpu_s_per_million": round(found["cpu_s"] / millions, 2),
        "peak_bytes": found["peak_bytes"],
        "device_day_before_s": before_s,
        "device_day_after_s": after_s,
        "device_day_times": round(before_s / after_s, 1),
    }


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
