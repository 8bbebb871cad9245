"""A small fleet landed in a lake without a broker: records and telemetry through the landing protocol itself."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.columns import REJECT_SCHEMA, TELEMETRY_SCHEMA
from contracts.consent import AnalyticsDefault
from contracts.records import RECORD_KEYS, records_table
from ingestion.collector.consent import (
    ConsentSnapshot,
    build_consent_snapshot,
    drops_by_reason,
    opted_out_rows,
)
from lake.extract import land_extract
from lake.landing import FILLED_BY_CLAIM, Claim, Manifest, claim_range, land_range, list_manifests
from lake.redactions import arrival_us
from lake.replacements import load_replacements
from lake.store import LocalStore, ObjectStore
from warehouse.duckdb.raw import load_pending, open_warehouse

START = datetime(2026, 6, 1)
DAY = timedelta(days=1)
NOW = datetime(2026, 7, 1)
STREAM = "cluster.telemetry.topic1"


def refusing(at: datetime) -> str:
    return json.dumps(
        {"analytics": {"at": f"{at:%Y-%m-%dT%H:%M:%S}Z", "value": False}},
        sort_keys=True,
        separators=(",", ":"),
    )


@dataclass
class Town:
    """Households o1 to o4 with pets p1 to p4 on collars c1 to c4, and what has landed of them.

    p4 moved from o3 to o4 on day 3. Collar c1 goes from p1 to p2's sister p5 (o2) on day 5.
    """

    store: ObjectStore
    offset: int = 0
    extracts: int = 0
    snapshots: list[ConsentSnapshot] = field(default_factory=list)

    def land_records(
        self, feed: str, rows: Sequence[dict[str, Any]], at: datetime = START, complete: bool = False
    ) -> Manifest:
        """An extract of upserts, or of all that exists, stated and received `at`."""
        self.extracts += 1
        key = RECORD_KEYS[feed]
        op = "snapshot" if complete else "upsert"
        full = [
            {"business_key": row[key], "op": op, "changed_at": at, "payload": "{}", **row} for row in rows
        ]
        return land_extract(
            self.store,
            source="clinic-crm",
            feed=feed,
            extract_id=f"e{self.extracts:03}",
            table=records_table(feed, full),
            complete=complete,
            extracted_at=at,
            claimed_at=at,
        )

    def settle(self) -> None:
        """The records of the town."""
        self.land_records(
            "owners",
            [
                {"owner_id": f"o{n}", "name": f"Person {n}", "contact_email": f"o{n}@example.org"}
                for n in range(1, 5)
            ],
        )
        self.land_records("pets", [{"pet_id": f"p{n}", "owner_id": f"o{min(n, 3)}"} for n in range(1, 5)])
        self.land_records("pets", [{"pet_id": "p5", "owner_id": "o2"}])
        self.land_records("pets", [{"pet_id": "p4", "owner_id": "o4"}], START + 3 * DAY)
        self.land_records(
            "device_assignments",
            [
                {
                    "assignment_id": f"a{n}",
                    "device_id": f"c{n}",
                    "pet_id": f"p{n}",
                    "assigned_from": START - DAY,
                    "assigned_to": START + 5 * DAY if n == 1 else None,
                }
                for n in range(1, 5)
            ]
            + [
                {
                    "assignment_id": "a5",
                    "device_id": "c1",
                    "pet_id": "p5",
                    "assigned_from": START + 5 * DAY,
                    "assigned_to": None,
                }
            ],
        )
        self.land_records(
            "clinic_visits",
            [
                {"visit_id": f"v{pet}-{day}", "pet_id": f"p{pet}", "visit_ts": START + day * DAY}
                for pet in (1, 2, 4)
                for day in (1, 4)
            ],
        )

    def keep_files(self) -> None:
        """A document of each visit, an appointment of p4 under either owner, contacts about those and others."""
        self.land_records(
            "visit_documents",
            [
                {
                    "document_id": f"d{pet}-{day}",
                    "visit_id": f"v{pet}-{day}",
                    "pet_id": f"p{pet}",
                    "document_uri": f"s3://documents/d{pet}-{day}",
                    "ocr_engine": "engine-1",
                    "ocr_fields": json.dumps({"owner": f"Person {pet}"}, separators=(",", ":")),
                }
                for pet in (1, 2, 4)
                for day in (1, 4)
            ],
        )
        self.land_records(
            "appointments",
            [
                {"appointment_id": f"m4-{day}", "pet_id": "p4", "scheduled_ts": START + day * DAY}
                for day in (2, 6)
            ],
        )
        contacts = [("o1", None), ("o2", None), ("o3", "m4-2"), ("o3", None), ("o4", "m4-6"), ("o4", "m4-2")]
        self.land_records(
            "engagement",
            [
                {
                    "engagement_id": f"g{number}",
                    "owner_id": owner_id,
                    "channel": "phone",
                    "action": "called",
                    "occurred_at": START + DAY,
                    "appointment_id": appointment_id,
                }
                for number, (owner_id, appointment_id) in enumerate(contacts, start=1)
            ],
        )

    def snapshot(self, at: datetime = NOW) -> ConsentSnapshot:
        self.snapshots.append(build_consent_snapshot(self.store, at, AnalyticsDefault.ALLOW))
        return self.snapshots[-1]

    def land_day(
        self, day: int, *, late: timedelta = timedelta(0), collars: Sequence[str] = ("c1", "c2", "c3", "c4")
    ) -> Manifest:
        """A day's range as a collector would land it under the newest snapshot: an event every two hours of
        each collar, received `late`, and a broken message that names c1."""
        moments = [START + day * DAY + timedelta(hours=2 * n) for n in range(12)]
        events = [(collar, moment) for moment in moments for collar in collars]
        first = self.offset
        values = {
            "kafka_offset": [first + n for n in range(len(events))],
            "arrival_ts": [moment + late + timedelta(seconds=2) for _, moment in events],
            "device_id": [collar for collar, _ in events],
            "event_ts": [moment for _, moment in events],
            "event_id": [f"e{first + n}" for n in range(len(events))],
            "step_count": [n % 5 for n in range(len(events))],
            "payload": [f'{{"at":"{collar}"}}' for collar, _ in events],
        }
        fields = [one for one in TELEMETRY_SCHEMA if one.name not in FILLED_BY_CLAIM]
        table = pa.Table.from_arrays(
            [pa.array(values.get(one.name, [None] * len(events)), one.type) for one in fields],
            schema=pa.schema(fields),
        )
        snapshot = self.snapshots[-1]
        dropped = opted_out_rows(snapshot.intervals(), table["device_id"], arrival_us(table))
        gone = table.filter(pa.array(dropped))
        self.offset += len(events) + 1
        claim = claim_range(
            self.store,
            Claim(
                stream_id=STREAM,
                partition=0,
                start=first,
                end=self.offset,
                feed="telemetry_events",
                source_system="petwellness-collar",
                decoder="collar-v1@1",
                claimed_at=START + day * DAY + late,
                claimed_by="test",
                consent_snapshot_id=snapshot.snapshot_id,
            ),
        )
        broken = {
            "stream_id": STREAM,
            "kafka_partition": 0,
            "kafka_offset": self.offset - 1,
            "arrival_ts": START + day * DAY + timedelta(hours=1),
            "source_system": "petwellness-collar",
            "reason": "malformed",
            "detail": "not an object",
            "payload": b'{"device_id": "c1", ',
        }
        return land_range(
            self.store,
            claim,
            table.filter(pa.array(~dropped)),
            pa.Table.from_pylist([broken], schema=REJECT_SCHEMA),
            consent_dropped=int(dropped.sum()),
            consent_dropped_by_reason=drops_by_reason(snapshot, gone["device_id"], arrival_us(gone)),
        )

    def rows(self, feed: str = "telemetry_events") -> pa.Table:
        """What readers of the lake see of a feed, from the objects in force."""
        replacements = load_replacements(self.store)
        tables = [
            pq.read_table(pa.BufferReader(self.store.get(replacements.main_object_of(m))))
            for m in list_manifests(self.store)
            if m.feed == feed
        ]
        return pa.concat_tables(tables).sort_by([("stream_id", "ascending"), ("kafka_offset", "ascending")])

    def load(self, path: Path) -> Any:
        with open_warehouse(path, self.store) as con:
            return load_pending(con, self.store, list_manifests(self.store))


def raw_content(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of raw that a rebuild has to bring back: all but when it was loaded and what was applied."""
    con = duckdb.connect(str(path), read_only=True)
    try:
        tables = [
            row[0]
            for row in con.execute(
                "select table_name from information_schema.tables where table_schema = 'raw' order by 1"
            ).fetchall()
        ]
        return {
            table: con.execute(
                f"select * {'exclude (loaded_at, load_seq)' if table == 'load_history' else ''} from raw.{table}"
                " order by all"
            ).fetchall()
            for table in tables
            if table not in ("redactions", "build_marks")
        }
    finally:
        con.close()


@pytest.fixture
def make_town(tmp_path: Path) -> Callable[[int], Town]:
    def make(days: int) -> Town:
        """A town in which nobody refused when it landed."""
        town = Town(LocalStore(tmp_path / "lake"))
        town.settle()
        town.snapshot()
        for day in range(days):
            town.land_day(day)
        return town

    return make


@pytest.fixture
def town(make_town: Callable[[int], Town]) -> Town:
    """Seven days of it."""
    return make_town(7)


@pytest.fixture
def content() -> Any:
    return raw_content
