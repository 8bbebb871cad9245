"""Files of different releases in one lake: read together, loaded together, on both kinds of store.

The older release is today's without three columns. What is really new, a field that
becomes a column, is played through whole at the end, with a release that has it.
"""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.telemetry import NOT_BEFORE, believed_receipts
from ingestion.collector.decode import decode_contract_json
from lake import landing, reading
from lake.extract import land_extract
from lake.landing import (
    Claim,
    LandingSchemaError,
    Manifest,
    claim_range,
    feed_schema,
    land_range,
    list_claims,
    list_manifests,
)
from lake.reading import NewerSchemaError, in_schema, landed_files, landed_schema
from lake.store import ObjectStore
from warehouse.compare import compare_tables
from warehouse.duckdb import raw as duckdb_raw
from warehouse.duckdb.raw import LoadMismatchError, load_pending, open_warehouse, table_row_counts
from warehouse.reconcile import read_raw_ranges, reconcile

LATER = {"quality_score", "capture_clinic_id", "timezone"}
START = datetime(2026, 6, 1)
TELEMETRY = "telemetry_events"


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """A context in which the release before runs: it knows nothing of the LATER columns."""

    def schema(feed: str) -> pa.Schema:
        return pa.schema([field for field in feed_schema(feed) if field.name not in LATER])

    @contextmanager
    def release() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(landing, "feed_schema", schema)
            patch.setattr(duckdb_raw, "feed_schema", schema)
            patch.setattr(landing, "SCHEMA_VERSION", landing.SCHEMA_VERSION - 1)
            yield

    return release


def land_events(store: ObjectStore, start: int, rows: int = 3) -> Manifest:
    """A range whose events have a value in every column this release has."""
    fitting: dict[str, Any] = {
        "kafka_offset": [start + i for i in range(rows)],
        "arrival_ts": [START + timedelta(minutes=i) for i in range(rows)],
        "event_ts": [START + timedelta(minutes=i) for i in range(rows)],
        "payload": ["{}"] * rows,
    }
    columns = {}
    for field in landing.feed_schema(TELEMETRY):
        if field.name not in landing.FILLED_BY_CLAIM:
            value = f"{field.name}-1" if pa.types.is_string(field.type) else 1
            columns[field.name] = pa.array(fitting.get(field.name, [value] * rows), field.type)
    claim = Claim(
        stream_id="cluster.telemetry.topic1",
        partition=0,
        start=start,
        end=start + rows,
        feed=TELEMETRY,
        source_system="petwellness-collar",
        decoder="collar-v1@1",
        claimed_at=datetime(2026, 6, 5),
        claimed_by="test",
    )
    return land_range(store, claim_range(store, claim), pa.table(columns))


def land_clinics(store: ObjectStore, extract_id: str) -> Manifest:
    columns = {
        "business_key": ["C1"],
        "op": ["snapshot"],
        "changed_at": pa.array([START], pa.timestamp("us")),
        "clinic_id": ["C1"],
        "name": ["Clinic"],
        "district": pa.array([None], pa.string()),
        "timezone": ["Europe/Zurich"],
        "payload": ["{}"],
    }
    known = landing.feed_schema("clinics").names
    return land_extract(
        store,
        source="crm",
        feed="clinics",
        extract_id=extract_id,
        table=pa.table({name: column for name, column in columns.items() if name in known}),
        complete=True,
        extracted_at=START,
    )


@pytest.fixture(params=["local", "s3"])
def lake(request: pytest.FixtureRequest) -> ObjectStore:
    """Either kind of store."""
    chosen: ObjectStore = request.getfixturevalue("store" if request.param == "local" else "s3_store")
    return chosen


def load(path: Path, lake: ObjectStore) -> None:
    with open_warehouse(path, lake) as con:
        load_pending(con, lake, list_manifests(lake))
        raw_ranges, orphans = read_raw_ranges(con)
        assert reconcile(list_claims(lake), list_manifests(lake), raw_ranges, orphans).findings == ()


def scores(path: Path, lake: ObjectStore) -> list[tuple[Any, ...]]:
    with open_warehouse(path, lake, read_only=True) as con:
        return con.execute(
            "select kafka_offset, quality_score::integer, capture_clinic_id, firmware_version"
            f" from raw.{TELEMETRY} order by kafka_offset"
        ).fetchall()


def test_old_and_new_files_are_read_and_loaded_together(
    lake: ObjectStore, older: Callable[[], Any], tmp_path: Path
) -> None:
    """A warehouse that the older release made and loaded goes on; a rebuild gives the same."""
    grown, rebuilt = tmp_path / "grown.duckdb", tmp_path / "rebuilt.duckdb"
    with older():
        land_events(lake, 0)
        land_clinics(lake, "day-1")
        load(grown, lake)
        land_events(lake, 3)
    land_events(lake, 6)
    land_clinics(lake, "day-2")
    load(grown, lake)
    with_values = (1, "capture_clinic_id-1", "firmware_version-1")
    without = (None, None, "firmware_version-1")
    assert scores(grown, lake) == [(i, *(without if i < 6 else with_values)) for i in range(9)]

    load(rebuilt, lake)
    with open_warehouse(grown) as con, open_warehouse(rebuilt) as other:
        for table in table_row_counts(other, "raw"):
            # Which load brought a range is the only thing that differs.
            exclude = ["loaded_at", "load_seq"] if table == "load_history" else []
            assert compare_tables(con, f"raw.{table}", other, f"raw.{table}", exclude=exclude) == []

    keys = sorted(manifest.source_file for manifest in list_manifests(lake) if manifest.feed == TELEMETRY)
    for order in (keys, keys[::-1], keys[:2]):
        table = pa.concat_tables(file.rows for file in landed_files(lake, order, landed_schema(TELEMETRY)))
        assert table.schema == feed_schema(TELEMETRY)
        by_offset = dict(
            zip(table["kafka_offset"].to_pylist(), table["quality_score"].to_pylist(), strict=True)
        )
        assert all((value is None) == (offset < 6) for offset, value in by_offset.items())
    clinics = [manifest.source_file for manifest in list_manifests(lake) if manifest.feed == "clinics"]
    schema = landed_schema("clinics", ["clinic_id", "timezone"])
    found = [
        zone for file in landed_files(lake, clinics, schema) for zone in file.rows["timezone"].to_pylist()
    ]
    assert sorted(found, key=str) == ["Europe/Zurich", None]


def test_a_load_of_old_files_only(lake: ObjectStore, older: Callable[[], Any], tmp_path: Path) -> None:
    with older():
        land_events(lake, 0)
    load(tmp_path / "warehouse.duckdb", lake)
    assert [row[1:3] for row in scores(tmp_path / "warehouse.duckdb", lake)] == [(None, None)] * 3


def test_an_older_release_refuses_what_a_newer_one_landed(
    store: ObjectStore, older: Callable[[], Any], tmp_path: Path
) -> None:
    """Loading it without its new columns would mark it as loaded, and nobody would look again."""
    with older():
        land_events(store, 0)
    land_events(store, 3)
    with older(), pytest.MonkeyPatch.context() as patch, open_warehouse(tmp_path / "w.duckdb", store) as con:
        patch.setattr(reading, "SCHEMA_VERSION", landing.SCHEMA_VERSION)
        with pytest.raises(NewerSchemaError, match="upgrade this process first"):
            load_pending(con, store, list_manifests(store))
        assert table_row_counts(con, "raw")[TELEMETRY] == 0


def test_a_file_that_does_not_fit_is_named() -> None:
    schema = pa.schema([pa.field("a", pa.int32(), nullable=False), pa.field("b", pa.decimal128(4, 1))])
    assert in_schema(pa.table({"a": [1], "c": [2]}), schema, "f").to_pylist() == [{"a": 1, "b": None}]
    with pytest.raises(LandingSchemaError, match="f: required column 'a' is missing"):
        in_schema(pa.table({"b": [1]}), schema, "f")
    with pytest.raises(LandingSchemaError, match="f: column 'a' is string"):
        in_schema(pa.table({"a": ["x"]}), schema, "f")


# The next release: one more optional field, as docs/schema-evolution.md says it is added.
NEXT_RELEASE = """
    import sys
    from datetime import datetime, timedelta
    from pathlib import Path

    import pyarrow as pa

    from contracts import columns

    field = pa.field("ambient_temp_c", pa.decimal128(4, 1))
    columns.TELEMETRY_FIELDS.append(field)
    columns.TELEMETRY_SCHEMA = columns.TELEMETRY_SCHEMA.insert(len(columns.TELEMETRY_SCHEMA) - 1, field)

    import json
    import numpy as np
    from ingestion.collector.decode import decode_contract_json
    from contracts.telemetry import NOT_BEFORE, believed_receipts
    from lake import landing, reading
    from lake.store import LocalStore
    from warehouse.duckdb.raw import load_pending, open_warehouse

    landing.SCHEMA_VERSION += 1
    reading.SCHEMA_VERSION += 1
    lake, warehouse = LocalStore(Path(sys.argv[1])), Path(sys.argv[2])
    messages = [line.encode() for line in sys.stdin.read().splitlines()]
    arrival_us = np.full(len(messages), int(sys.argv[3]))
    received = datetime(1970, 1, 1) + timedelta(microseconds=int(sys.argv[3]))
    decoded = decode_contract_json(messages, arrival_us, believed_receipts(received, NOT_BEFORE))
    table = decoded.table.append_column("kafka_offset", pa.array(decoded.index)).append_column(
        "arrival_ts", pa.array(arrival_us[decoded.index]).cast(pa.timestamp("us"))
    )
    claim = landing.Claim(
        stream_id="cluster.telemetry.topic1", partition=1, start=0, end=len(decoded.index),
        feed="telemetry_events", source_system="petwellness-collar", decoder="collar-v1@2",
        claimed_at=datetime(2026, 6, 6), claimed_by="test",
    )
    landing.land_range(lake, landing.claim_range(lake, claim), table)
    with open_warehouse(warehouse, lake) as con:
        load_pending(con, lake, landing.list_manifests(lake))
        rows = con.execute(
            "select event_id, ambient_temp_c::varchar, (payload->>'ambient_temp_c')::varchar,"
            " kafka_partition from raw.telemetry_events order by all"
        ).fetchall()
    print(json.dumps({"rows": rows, "rejects": [(r.index, r.reason) for r in decoded.rejects]}))
"""


def test_a_field_that_was_unknown_is_kept_in_the_payload_and_typed_later(
    store: ObjectStore, tmp_path: Path, repository: Path
) -> None:
    """The same message through today's release, where the field is unknown, and the next one's column."""
    arrival_us = int((START - datetime(1970, 1, 1)) / timedelta(microseconds=1))

    def event(number: int, **changes: Any) -> bytes:
        content = {"device_id": "d", "event_ts": "2026-06-01T00:00:00Z", "event_id": f"e{number}"}
        return json.dumps({**content, **changes}).encode()

    good = [event(0, ambient_temp_c=21.5), event(1), event(2, ambient_temp_c=None)]
    bad = [
        event(3, ambient_temp_c="21.5"),
        event(4, ambient_temp_c=21.55),
        event(5, ambient_temp_c=12345),
        event(6, ambient_temp_c=1)[:-1] + b',"ambient_temp_c":2}',
    ]
    decoded = decode_contract_json(good + bad, np.full(7, arrival_us), believed_receipts(START, NOT_BEFORE))
    assert len(decoded.index) == 7  # Unknown to this release, whatever it holds.
    table = decoded.table.append_column("kafka_offset", pa.array(decoded.index)).append_column(
        "arrival_ts", pa.array(np.full(7, arrival_us)).cast(pa.timestamp("us"))
    )
    claim = Claim(
        stream_id="cluster.telemetry.topic1",
        partition=0,
        start=0,
        end=3,
        feed=TELEMETRY,
        source_system="petwellness-collar",
        decoder="collar-v1@1",
        claimed_at=datetime(2026, 6, 5),
        claimed_by="test",
    )
    land_range(store, claim_range(store, claim), table.slice(0, 3))
    load(tmp_path / "warehouse.duckdb", store)

    arguments = [str(tmp_path / "lake"), str(tmp_path / "warehouse.duckdb"), str(arrival_us)]
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(NEXT_RELEASE), *arguments],
        input=b"\n".join(good + bad),
        capture_output=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(repository)},
    )
    assert ran.returncode == 0, ran.stderr.decode()
    told = json.loads(ran.stdout)
    assert told["rows"] == [
        ["e0", "21.5", "21.5", 1],
        ["e0", None, "21.5", 0],
        ["e1", None, None, 0],
        ["e1", None, None, 1],
        ["e2", None, None, 0],
        ["e2", None, None, 1],
    ]
    assert told["rejects"] == [[3, "type"], [4, "precision"], [5, "range"], [6, "malformed"]]


def test_a_changed_type_is_an_error_of_the_loader_not_a_silent_cast(
    store: ObjectStore, tmp_path: Path
) -> None:
    """Nobody lands such a file; were one there, the load would stop and keep nothing."""
    manifest = land_events(store, 0)
    path = Path(store.uri(manifest.source_file))
    table = pq.read_table(path)
    at = table.schema.get_field_index("step_count")
    pq.write_table(table.set_column(at, "step_count", pa.array(["many"] * 3)), path)
    with open_warehouse(tmp_path / "w.duckdb", store) as con:
        with pytest.raises(LoadMismatchError, match="does not fit"):
            load_pending(con, store, list_manifests(store))
        assert table_row_counts(con, "raw") == dict.fromkeys(table_row_counts(con, "raw"), 0)
