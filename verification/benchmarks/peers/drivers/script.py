"""The fast, lax script one could write instead: batches of messages through Polars' or DuckDB's JSON reader.

It runs in an environment of its own. It validates nothing, keeps no place of its
own beyond Kafka's offsets, and commits them after each file.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import Consumer

COLUMNS = {
    "device_id": "varchar",
    "event_ts": "timestamp",
    "event_id": "varchar",
    "accel_x_g": "double",
    "accel_y_g": "double",
    "accel_z_g": "double",
    "step_count": "integer",
    "lick_count": "integer",
    "gps_lat": "double",
    "gps_long": "double",
    "battery_pct": "double",
    "pulse_bpm": "double",
    "body_temp_c": "double",
    "firmware_version": "varchar",
    "capture_clinic_id": "varchar",
    "schema_version": "integer",
}

Write = Callable[[list[bytes], Path], None]


def with_polars() -> Write:
    """Each batch by Polars."""
    import polars as pl

    kinds = {"varchar": pl.String, "double": pl.Float64, "integer": pl.Int64, "timestamp": pl.String}
    event = pl.Struct({name: kinds[kind] for name, kind in COLUMNS.items()})

    def write(values: list[bytes], path: Path) -> None:
        raw = pl.DataFrame({"payload": pl.Series(values, dtype=pl.Binary)}).cast(pl.String)
        fields = raw.select("payload", pl.col("payload").str.json_decode(event).alias("event")).unnest(
            "event"
        )
        typed = fields.with_columns(pl.col("event_ts").str.to_datetime("%+", time_unit="us", time_zone="UTC"))
        typed.write_parquet(path, compression="zstd", compression_level=1)

    return write


def with_duckdb() -> Write:
    """Each batch by DuckDB, on all cores."""
    import duckdb
    import pyarrow as pa

    connection = duckdb.connect()
    event = json.dumps(COLUMNS).replace("'", "''")

    def write(values: list[bytes], path: Path) -> None:
        raw = pa.table({"payload": pa.array(values, pa.binary()).cast(pa.string())})
        connection.register("raw", raw)
        connection.execute(
            f"copy (select unnest(from_json(payload, '{event}')), payload from raw) "
            f"to '{path}' (format parquet, compression zstd)"
        )
        connection.unregister("raw")

    return write


def main(job: dict[str, str], messages: int, batch: int, write: Write) -> None:
    """Read `messages` messages of the topic into Parquet files of `batch` rows in the folder `output`."""
    consumer = Consumer(
        {
            "bootstrap.servers": job["bootstrap"],
            "group.id": job["group"],
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([job["topic"]])
    print("reads now", flush=True)
    values: list[bytes] = []
    seen = files = 0
    while seen < messages:
        taken = [
            one.value() for one in consumer.consume(min(10_000, batch - len(values)), 0.2) if not one.error()
        ]
        values += taken
        seen += len(taken)
        if len(values) == batch or (values and seen >= messages):
            write(values, Path("output") / f"{files:06}.parquet")
            consumer.commit(asynchronous=False)
            values, files = [], files + 1
    consumer.close()


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    readers = {"polars": with_polars, "duckdb": with_duckdb}
    main(told, told["messages"], told["batch"], readers[told["by"]]())
