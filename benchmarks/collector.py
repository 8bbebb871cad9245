"""Events per second through the collector, against a naive poll-and-pydantic loop over the same messages.

Both read the same topic of an embedded broker in the same run and end with the
messages in Parquet; the naive one validates less, has no claims and loses its
place in a crash. Rates are by wall clock, and by CPU time of the process (which
includes the embedded broker's share, the same for both) for noisy machines.
"""

import io
import json
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

MESSAGES = 300_000
PARTITIONS = 32
START = datetime(2026, 6, 1)
NAIVE_BATCH = 10_000


def generate(count: int) -> tuple[list[bytes], list[int]]:
    """Telemetry messages as collars send them, about 350 bytes each, and their receipts in epoch ms."""
    draws = np.random.default_rng(7)
    motion = np.round(draws.normal(0, 1, (count, 3)), 4).tolist()
    place = np.round(draws.uniform(0, 1, (count, 2)), 7).tolist()
    counts = draws.integers(0, 100, (count, 2)).tolist()
    vitals = np.round(draws.uniform(0, 1, (count, 3)), 1).tolist()
    ids = draws.bytes(16 * count).hex()
    start_ms = int(START.replace(tzinfo=UTC).timestamp() * 1000)
    messages, arrivals = [], []
    for i in range(count):
        moment = START + timedelta(seconds=i // 4, milliseconds=i % 1000)
        event: dict[str, Any] = {
            "device_id": f"collar-{i % 120:05}",
            "event_ts": moment.isoformat(timespec="milliseconds") + "Z",
            "event_id": ids[32 * i : 32 * i + 32],
            "accel_x_g": motion[i][0],
            "accel_y_g": motion[i][1],
            "accel_z_g": motion[i][2],
            "step_count": counts[i][0],
            "lick_count": counts[i][1],
            "gps_lat": round(47 + place[i][0], 7),
            "gps_long": round(8 + place[i][1], 7),
            "battery_pct": round(100 * vitals[i][0], 1),
            "pulse_bpm": round(80 + 20 * vitals[i][1], 1),
            "body_temp_c": round(38 + vitals[i][2], 1),
            "firmware_version": "2.4.1",
            "capture_clinic_id": "clinic-01",
            "schema_version": 1,
        }
        messages.append(json.dumps(event, separators=(",", ":")).encode())
        arrivals.append(start_ms + i * 250 + 2_000)
    return messages, arrivals


def naive(client: Any, expected: int) -> int:
    """Poll, validate with pydantic, write Parquet in batches: the loop one writes first."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pydantic import BaseModel

    class Event(BaseModel):
        device_id: str
        event_ts: datetime
        event_id: str
        accel_x_g: float | None = None
        accel_y_g: float | None = None
        accel_z_g: float | None = None
        step_count: int | None = None
        lick_count: int | None = None
        gps_lat: float | None = None
        gps_long: float | None = None
        battery_pct: float | None = None
        pulse_bpm: float | None = None
        body_temp_c: float | None = None
        firmware_version: str | None = None
        capture_clinic_id: str | None = None
        schema_version: int | None = None

    consumer = client.consumer()
    consumer.subscribe(["telemetry"])
    rows: list[dict[str, Any]] = []
    seen = 0
    while seen < expected:
        message = consumer.poll(1.0)
        if message is None or message.error() is not None:
            continue
        event = Event(**json.loads(message.value())).model_dump()
        event |= {
            "kafka_partition": message.partition(),
            "kafka_offset": message.offset(),
            "arrival_ms": message.timestamp()[1],
            "payload": message.value().decode(),
        }
        rows.append(event)
        seen += 1
        if len(rows) == NAIVE_BATCH or seen == expected:
            pq.write_table(pa.Table.from_pylist(rows), io.BytesIO(), compression="zstd")
            rows = []
    consumer.close()
    return seen


def collected(client: Any, home: Path) -> int:
    """The collector with its whole protocol into a local lake."""
    from ingestion.collector.consent import build_consent_snapshot
    from ingestion.collector.engine import Collector
    from ingestion.lake.landing import utc_now
    from ingestion.lake.store import LocalStore
    from ingestion.settings import CollectorSettings

    store = LocalStore(home / "lake")
    build_consent_snapshot(store, utc_now())
    return Collector(client, store, CollectorSettings(), ["telemetry"]).drain().rows


def run(messages: int = MESSAGES) -> dict[str, float]:
    """Rates of both loops (events/s by wall and by the loop's own CPU) and their ratios."""
    from ingestion.broker.client import connect
    from ingestion.broker.embedded import MAX_UNLANDED_BYTES, EmbeddedBroker
    from ingestion.settings import BrokerSettings

    values, arrivals = generate(messages)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with EmbeddedBroker({"telemetry": PARTITIONS}, home / "broker.json"):
            client = connect(BrokerSettings(), home)
            producer = client.producer()
            sizes = [0] * PARTITIONS
            for i, (value, arrival_ms) in enumerate(zip(values, arrivals, strict=True)):
                partition = i % PARTITIONS
                sizes[partition] += len(value) + 48
                while True:
                    try:
                        producer.produce("telemetry", value, b"k", partition, timestamp=arrival_ms)
                        break
                    except BufferError:
                        producer.poll(0.1)
            producer.flush()
            if max(sizes) > MAX_UNLANDED_BYTES:
                raise ValueError(f"{messages} messages do not fit the embedded broker; use fewer")
            # Imports and first calls are not what is compared.
            naive(client, messages // 10), collected(client, home / "warm")
            naive_wall_s, naive_cpu_s = _timed(lambda: naive(client, messages), messages)
            wall_s, cpu_s = _timed(lambda: collected(client, home), messages)
    return {
        "messages": messages,
        "message_bytes": round(sum(map(len, values)) / messages),
        "naive_events_per_s": round(messages / naive_wall_s),
        "collector_events_per_s": round(messages / wall_s),
        "ratio": round(naive_wall_s / wall_s, 2),
        "naive_events_per_cpu_s": round(messages / naive_cpu_s),
        "collector_events_per_cpu_s": round(messages / cpu_s),
        "cpu_ratio": round(naive_cpu_s / cpu_s, 2),
    }


def _timed(work: Callable[[], int], expected: int) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if found != expected:
        raise AssertionError(f"{found} messages came through, not {expected}")
    return wall, cpu


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
