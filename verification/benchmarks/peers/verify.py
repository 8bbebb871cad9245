"""What a peer's Parquet files hold, against the messages that were produced."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# The fields of verification.benchmarks.messages.generate and what they should be in Parquet.
FIELDS = {
    "device_id": "text",
    "event_ts": "timestamp",
    "event_id": "text",
    "accel_x_g": "real",
    "accel_y_g": "real",
    "accel_z_g": "real",
    "step_count": "whole",
    "lick_count": "whole",
    "gps_lat": "real",
    "gps_long": "real",
    "battery_pct": "real",
    "pulse_bpm": "real",
    "body_temp_c": "real",
    "firmware_version": "text",
    "capture_clinic_id": "text",
    "schema_version": "whole",
}
PAYLOAD = "payload"

_KINDS = {
    "real": ("DOUBLE", "FLOAT"),
    "whole": ("BIGINT", "INTEGER", "SMALLINT", "TINYINT", "UBIGINT", "UINTEGER"),
    "timestamp": ("TIMESTAMP", "DATE"),
    "text": ("VARCHAR",),
}


@dataclass(frozen=True)
class Contents:
    """Rows of all files, messages missing and rows too many by event id, and what the rows hold.

    `payloads` counts rows whose payload parses to their own event id; `untyped`
    names fields that are missing or not of their kind, sorted.
    """

    rows: int
    lost: int
    duplicated: int
    payloads: int
    untyped: tuple[str, ...]


def parquet_files(folder: Path) -> list[Path]:
    """All complete Parquet files below a folder, by path."""
    return [path for path in _candidates(folder) if rows_of(path) is not None]


def rows_of(path: Path) -> int | None:
    """Rows by a file's footer; None while it has none."""
    import pyarrow.parquet as pq
    from pyarrow.lib import ArrowInvalid

    try:
        return pq.read_metadata(path).num_rows
    except ArrowInvalid:
        return None


def contents(files: Iterable[Path], messages: int) -> Contents:
    """Read the files, at least one, and count. Messages are told apart by event id."""
    import duckdb

    names = [str(path) for path in files]
    with duckdb.connect() as connection:
        relation = connection.read_parquet(names, union_by_name=True)
        types = {name: str(kind) for name, kind in zip(relation.columns, relation.types, strict=True)}
        payloads = (
            f"count(*) filter (json_extract_string(try_cast({PAYLOAD} as varchar), '$.event_id') = event_id)"
            if PAYLOAD in types
            else "0"
        )
        counted = f"select count(*), count(distinct event_id), {payloads} from relation"
        [(rows, distinct, kept)] = connection.execute(counted).fetchall()
    return Contents(rows, messages - distinct, rows - distinct, kept, untyped(types))


def untyped(types: dict[str, str]) -> tuple[str, ...]:
    """The fields that are missing or whose column type (DuckDB's name) is not of their kind, sorted."""
    return tuple(
        sorted(name for name, kind in FIELDS.items() if not types.get(name, "").startswith(_KINDS[kind]))
    )


class RowCount:
    """Rows in the complete Parquet files of a folder, cheaply counted again and again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: dict[Path, int] = {}

    def __call__(self) -> int:
        for path in _candidates(self._folder):
            if path not in self._rows and (rows := rows_of(path)) is not None:
                self._rows[path] = rows
        return sum(self._rows.values())


def _candidates(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.parquet") if not path.name.startswith("."))
