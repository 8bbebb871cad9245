"""Landed ranges made by the landing protocol itself, and warehouses to load them into."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from contracts.columns import REJECT_SCHEMA, TELEMETRY_SCHEMA
from lake.extract import land_extract
from lake.landing import FILLED_BY_CLAIM, Claim, Manifest, claim_range, land_range
from lake.store import LocalStore, ObjectStore

START = datetime(2026, 6, 1)
STREAM = "cluster.telemetry.topic1"


def telemetry_table(start: int, rows: int, first_ts: datetime = START) -> pa.Table:
    """`rows` events of one collar, one a minute from `first_ts` on, at offsets from `start` on."""
    values: dict[str, Any] = {
        "kafka_offset": [start + i for i in range(rows)],
        "arrival_ts": [first_ts + timedelta(minutes=i, seconds=2) for i in range(rows)],
        "device_id": ["PW-0001"] * rows,
        "event_ts": [first_ts + timedelta(minutes=i) for i in range(rows)],
        "event_id": [f"e{start + i:06}" for i in range(rows)],
        "step_count": [i % 7 for i in range(rows)],
        "pulse_bpm": [Decimal("80.5")] * rows,
        "payload": [f'{{"n":{start + i}}}' for i in range(rows)],
    }
    fields = [field for field in TELEMETRY_SCHEMA if field.name not in FILLED_BY_CLAIM]
    arrays = [pa.array(values.get(field.name, [None] * rows), field.type) for field in fields]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def reject_table(offsets: Sequence[int]) -> pa.Table:
    """One malformed message at each offset."""
    rows = [
        {
            "stream_id": STREAM,
            "kafka_partition": 0,
            "kafka_offset": offset,
            "arrival_ts": START,
            "source_system": "petwellness-collar",
            "reason": "malformed",
            "detail": "not an object",
            "payload": b"x",
        }
        for offset in offsets
    ]
    return pa.Table.from_pylist(rows, schema=REJECT_SCHEMA)


LandTelemetry = Callable[..., Manifest]


@pytest.fixture(scope="session")
def land_telemetry() -> LandTelemetry:
    def land(
        store: ObjectStore,
        start: int = 0,
        rows: int = 5,
        *,
        rejected: int = 0,
        stream_id: str = STREAM,
        partition: int = 0,
        first_ts: datetime = START,
        claimed_at: datetime = datetime(2026, 6, 5, 12),
    ) -> Manifest:
        """Land a range of `rows` good and then `rejected` malformed messages."""
        claim = Claim(
            stream_id=stream_id,
            partition=partition,
            start=start,
            end=start + rows + rejected,
            feed="telemetry_events",
            source_system="petwellness-collar",
            decoder="collar-v1@1",
            claimed_at=claimed_at,
            claimed_by="test",
        )
        rejects = reject_table(range(start + rows, claim.end)) if rejected else None
        claim = claim_range(store, claim)
        return land_range(store, claim, telemetry_table(start, rows, first_ts), rejects)

    return land


@pytest.fixture(scope="session")
def land_clinics() -> Callable[[ObjectStore, str, int], Manifest]:
    def land(store: ObjectStore, extract_id: str, clinics: int) -> Manifest:
        """Land a complete extract of `clinics` clinics."""
        table = pa.table(
            {
                "business_key": [f"C{i}" for i in range(clinics)],
                "op": ["snapshot"] * clinics,
                "changed_at": pa.array([START] * clinics, pa.timestamp("us")),
                "clinic_id": [f"C{i}" for i in range(clinics)],
                "name": [f"Clinic {i}" for i in range(clinics)],
                "district": pa.array([None] * clinics, pa.string()),
                "timezone": ["Europe/Zurich"] * clinics,
                "payload": ["{}"] * clinics,
            }
        )
        return land_extract(
            store,
            source="clinic-crm",
            feed="clinics",
            extract_id=extract_id,
            table=table,
            complete=True,
            extracted_at=START,
        )

    return land


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "lake")


@pytest.fixture
def warehouse_path(tmp_path: Path) -> Path:
    return tmp_path / "warehouse.duckdb"
